"""The parts of a transformer block that is trained, put together as a description says, under published names."""

from functools import partial
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from llada_core.model.description import Description, Experts
from llada_core.model.doubled_attention import Pattern
from llada_core.model.packed import Rows
from llada_core.model.rotary import rotate
from llada_core.model.routing import choose_experts, places_by_expert


class RMSNorm(nn.Module):
    """Root-mean-square norm that, as published, divides in float32 and applies the weight after casting back."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_TE: Tensor) -> Tensor:
        x = x_TE.float()
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return normed.to(x_TE.dtype) * self.weight


class Embedding(nn.Embedding):
    """A table of vectors by token."""

    def reset_parameters(self) -> None:
        """Draw random vectors, except on the meta device, where torch imports its compiler for that: half a second."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Projection(nn.Linear):
    """A linear map that knows the standard deviation of its initial weights."""

    def __init__(
        self, in_features: int, out_features: int, *, has_bias: bool = False, residual_depth: int | None = None
    ) -> None:
        """`residual_depth`: index of the layer whose output is added to the residual stream ("mitchell" init)."""
        self.init_std = in_features**-0.5
        if residual_depth is not None:
            self.init_std /= (2 * (residual_depth + 1)) ** 0.5
        super().__init__(in_features, out_features, bias=has_bias)


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to the residual stream; optionally recomputed in backward."""

    is_recomputed = False

    def __init__(self, description: Description, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self._head_dim = description.attention.head_dim
        self._fused_widths = description.attention.widths if description.attention.is_fused else None
        self._rotate = partial(rotate, is_float32=description.attention.rotary.is_float32)
        self._has_head_norms = description.attention.has_head_norms
        feed_forward = description.feed_forwards[depth]
        self.experts = feed_forward if isinstance(feed_forward, Experts) else None
        # Sorts tokens by expert; a dry run, which has no tokens, puts another in its place.
        self.sort_by_expert = places_by_expert
        # Looked up by name at every use: adapters and quantised layers are put in the place of modules.
        self._lookups: dict[str, attrgetter[nn.Module]] = {}
        shapes = description.block_shapes(depth)
        for role, shape in shapes.items():
            name, _, parameter = description.names.tensor(role, depth).rpartition(".")
            name = name.removeprefix(f"{description.names.blocks}.{depth}.")
            if parameter == "weight":
                self._lookups[role] = attrgetter(name)
                if len(shape) == 1:
                    place(self, name, RMSNorm(shape[0], description.norm_eps))
                else:
                    place(self, name, self._projection(role, shape, has_bias=f"{role}.bias" in shapes))
            elif parameter != "bias":
                self._lookups[role] = attrgetter(f"{name}.{parameter}")
                self.get_submodule(name).register_buffer(parameter, torch.zeros(shape))

    def _projection(self, role: str, shape: tuple[int, ...], *, has_bias: bool) -> Projection:
        is_last = role.partition(".")[0].endswith(("_out", "down"))
        out_features, in_features = shape
        return Projection(in_features, out_features, has_bias=has_bias, residual_depth=self.depth if is_last else None)

    def part(self, role: str) -> Any:
        """Return the module, or the buffer, that plays a role."""
        return self._lookups[role](self)

    def forward(
        self, hidden_TE: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, plan: Pattern, rows: Rows | None = None
    ) -> Tensor:
        """Compute the next hidden states: at every position or, in the last layer, only at the requested rows."""
        if not (self.is_recomputed and self.training):
            return self._next(hidden_TE, cos_T1D, sin_T1D, plan, rows)
        # Within `forward`: hooks of the module, which gather its weights under FSDP, run once. Non-reentrant: the other
        # kind recomputes nothing where a block's input needs no gradient, as with LoRA.
        recomputed_QE: Tensor = checkpoint(self._next, hidden_TE, cos_T1D, sin_T1D, plan, rows, use_reentrant=False)
        return recomputed_QE

    def _next(self, hidden_TE: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, plan: Pattern, rows: Rows | None) -> Tensor:
        attended_QE = self._attention(self.part("attention_norm")(hidden_TE), cos_T1D, sin_T1D, plan, rows)
        hidden_QE = (hidden_TE if rows is None else hidden_TE[rows.index_R]) + attended_QE
        return hidden_QE + self._feed_forward(self.part("feed_forward_norm")(hidden_QE))

    def _attention(self, x_TE: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, plan: Pattern, rows: Rows | None) -> Tensor:
        # Keys and values come from all positions; queries and everything after them are needed only at the rows.
        x_QE, cos_Q1D, sin_Q1D = (x if rows is None else x[rows.index_R] for x in (x_TE, cos_T1D, sin_T1D))
        if self._fused_widths is None:
            qkv = [self.part(role)(x) for role, x in (("query", x_QE), ("key", x_TE), ("value", x_TE))]
        else:
            qkv = list(self.part("query_key_value")(x_TE).split(self._fused_widths, dim=-1))
            qkv[0] = qkv[0] if rows is None else qkv[0][rows.index_R]
        q_QHD, k_TKD, v_TKD = (x.unflatten(-1, (-1, self._head_dim)) for x in qkv)
        if self._has_head_norms:
            q_QHD, k_TKD = self.part("query_norm")(q_QHD), self.part("key_norm")(k_TKD)
        q_QHD, k_TKD = self._rotate(q_QHD, cos_Q1D, sin_Q1D), self._rotate(k_TKD, cos_T1D, sin_T1D)
        attended_QHD = plan.attend(q_QHD, k_TKD, v_TKD, self.depth)
        attended_QE: Tensor = self.part("attention_out")(attended_QHD.flatten(-2))
        return attended_QE

    def _feed_forward(self, x_TE: Tensor) -> Tensor:
        if self.experts is None:
            return self._swiglu(x_TE, "gate", "up", "down")
        bias_X = self.part("mixture.expert_bias") if self.experts.has_bias else None
        router = self.part("router")
        # By groups, experts are chosen in float32; without, as published, from logits in the dtype of the weights.
        logits_TX = router(x_TE) if self.experts.groups is None else F.linear(x_TE.float(), router.weight.float())
        weights_TN, experts_TN = choose_experts(logits_TX, self.experts, bias_X)
        weights = weights_TN.to(x_TE.dtype).flatten().unsqueeze(1)
        output_TE = torch.zeros_like(x_TE)
        # In training every weight needs a gradient, if of zeros: DDP waits for all of them.
        with_idle = torch.is_grad_enabled()
        for expert, places in self.sort_by_expert(experts_TN, self.experts.num_experts, with_idle=with_idle):
            rows = places // self.experts.num_chosen
            chosen = self._swiglu(x_TE[rows], f"expert_gate.{expert}", f"expert_up.{expert}", f"expert_down.{expert}")
            output_TE = output_TE.index_add(0, rows, chosen * weights[places])
        if self.experts.shared_width is None:
            return output_TE
        return output_TE + self._swiglu(x_TE, "shared_gate", "shared_up", "shared_down")

    def _swiglu(self, x_TE: Tensor, gate: str, up: str, down: str) -> Tensor:
        output_TE: Tensor = self.part(down)(F.silu(self.part(gate)(x_TE)) * self.part(up)(x_TE))
        return output_TE


def place(root: nn.Module, name: str, module: nn.Module) -> None:
    """Register a module under a dotted name; the modules on the way to it are made if they are missing."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.ModuleDict())
        root = root.get_submodule(part)
    root.add_module(last, module)
