"""The parts of a LLaDA block, with the published tensor names."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.attention import AttentionPlan
from llada_core.model.packed import Rows
from llada_core.model.rotary import rotate


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


class Projection(nn.Linear):
    """A linear map without bias that knows the standard deviation of its initial weights."""

    def __init__(self, in_features: int, out_features: int, *, residual_depth: int | None = None) -> None:
        """`residual_depth`: index of the layer whose output is added to the residual stream ("mitchell" init)."""
        self.init_std = in_features**-0.5
        if residual_depth is not None:
            self.init_std /= (2 * (residual_depth + 1)) ** 0.5
        super().__init__(in_features, out_features, bias=False)


class LLaDABlock(GradientCheckpointingLayer):
    """Pre-norm attention and SwiGLU, each added to the residual stream; optionally recomputed in backward."""

    def __init__(self, config: LLaDAConfig, depth: int) -> None:
        super().__init__()
        assert config.n_kv_heads is not None
        assert config.mlp_hidden_size is not None
        width, kv_width, mlp_width = config.d_model, config.n_kv_heads * config.head_dim, config.mlp_hidden_size
        self.depth = depth
        self.head_dim = config.head_dim
        self.attn_norm = RMSNorm(width, config.rms_norm_eps)
        self.q_proj = Projection(width, width)
        self.k_proj = Projection(width, kv_width)
        self.v_proj = Projection(width, kv_width)
        self.attn_out = Projection(width, width, residual_depth=depth)
        self.ff_norm = RMSNorm(width, config.rms_norm_eps)
        self.ff_proj = Projection(width, mlp_width)
        self.up_proj = Projection(width, mlp_width)
        self.ff_out = Projection(mlp_width, width, residual_depth=depth)

    def forward(
        self, hidden_TE: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, plan: AttentionPlan, rows: Rows | None = None
    ) -> Tensor:
        """Compute the next hidden states: at every position or, in the last layer, only at the requested rows."""
        attended_QE = self._attention(self.attn_norm(hidden_TE), cos_T1D, sin_T1D, plan, rows)
        hidden_QE = (hidden_TE if rows is None else hidden_TE[rows.index_R]) + attended_QE
        return hidden_QE + self._feed_forward(self.ff_norm(hidden_QE))

    def _attention(
        self, x_TE: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, plan: AttentionPlan, rows: Rows | None
    ) -> Tensor:
        # Keys and values come from all positions; queries and everything after them are needed only at the rows.
        x_QE, cos_Q1D, sin_Q1D = (x if rows is None else x[rows.index_R] for x in (x_TE, cos_T1D, sin_T1D))
        q_QHD, k_TKD, v_TKD = (
            projection(x).unflatten(-1, (-1, self.head_dim))
            for projection, x in ((self.q_proj, x_QE), (self.k_proj, x_TE), (self.v_proj, x_TE))
        )
        attended_QHD = plan.attend(rotate(q_QHD, cos_Q1D, sin_Q1D), rotate(k_TKD, cos_T1D, sin_T1D), v_TKD, self.depth)
        return self.attn_out(attended_QHD.flatten(-2))

    def _feed_forward(self, x_TE: Tensor) -> Tensor:
        return self.ff_out(F.silu(self.ff_proj(x_TE)) * self.up_proj(x_TE))
