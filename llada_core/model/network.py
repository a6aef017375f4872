"""The network of every architecture, for training and accelerators: a transformer whose positions see those after them
(arXiv:2502.09992, section 2.1), built from a description.

Parameter names are those of the published checkpoints.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llada_core.model.config import ModelConfig
from llada_core.model.doubled_attention import attention_pattern
from llada_core.model.layers import Block, Embedding, Projection, RMSNorm, place
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.rotary import RotaryTable
from llada_core.model.routing import load_balance
from llada_core.text.special_tokens import SpecialTokens


class LoadBalance:
    """How evenly forward passes load the experts of a network's mixtures."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._logits: list[Tensor] = []

    def add(self, block: Block, _router: nn.Module, _inputs: object, logits_TX: Tensor) -> None:
        """Take the output of a router."""
        self._blocks.append(block)
        self._logits.append(logits_TX)

    def loss(self) -> Tensor | None:
        """Return the loss that balances their load, with its weight; None for a network without mixtures."""
        if not self._blocks:
            return None
        experts = self._blocks[0].experts
        assert experts is not None
        biases = [block.part("mixture.expert_bias") if experts.has_bias else None for block in self._blocks]
        return experts.balance_weight * load_balance(self._logits, experts, biases)


class MaskedLMOutput(NamedTuple):
    """What the published models return, as far as it is used."""

    logits: Tensor
    """[B, L, V]"""


class Network(nn.Module):
    """A mask predictor: maps token ids, some of them masks, to logits over the vocabulary at every position.

    A plain module: checkpoints are read and written by `llada_core.checkpoint`, and importing what `transformers`
    derives models from takes three seconds.
    """

    special_tokens: SpecialTokens
    """The checkpoint's mask, EOS and EoT ids; set by `load_checkpoint`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        description = config.describe()
        self._names = description.names
        self._has_tied_head = description.has_tied_head
        self.shape = config.shape
        parts = {
            self._names.outside["embedding"]: Embedding(description.num_columns, description.width),
            self._names.blocks: nn.ModuleList(Block(description, depth) for depth in range(description.num_layers)),
            self._names.outside["final_norm"]: RMSNorm(description.width, description.norm_eps),
        }
        if not description.has_tied_head:
            parts[self._names.outside["head"]] = Projection(description.width, description.num_columns)
        for name, module in parts.items():
            place(self, name, module)
        self.rotary = RotaryTable(description.attention.rotary.dim, description.attention.rotary.theta)
        self.apply(self._init_weights)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        block_length: int | None = None,
    ) -> MaskedLMOutput:
        """Compute the network's output at every position of a padded batch: the interface of the published models.

        Args:
            input_ids: [B, L]
            attention_mask: [B, L], 1 = token, 0 = padding on either side. Padding is left out of the computation,
                and its rows of the result are zero.
            block_length: attention is block-causal, in blocks of this length from each row's first token on; None for
                attention of all tokens to all, which is the published classes' without a mask.
        """
        is_token_BL = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        lengths = tuple(is_token_BL.sum(dim=1).tolist()) if attention_mask is not None else self._full(input_ids)
        block_lengths = None if block_length is None else (block_length,) * len(lengths)
        hidden_TE = self._outputs(PackedTokens(input_ids[is_token_BL], lengths, block_lengths=block_lengths))
        logits_TV = self.head(hidden_TE)
        logits_BLV = logits_TV.new_zeros(*input_ids.shape, logits_TV.shape[-1])
        logits_BLV = logits_BLV.masked_scatter(is_token_BL.unsqueeze(-1), logits_TV)
        return MaskedLMOutput(logits_BLV)

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """Compute the last hidden state, normed, at the requested rows or at every position: [R, E] or [T, E].

        It is the one that predicts the row's token, which is the row before it if `shape.predicts_next`.
        """
        if self.shape.predicts_next:
            rows = (Rows.every(packed) if rows is None else rows).one_before(packed)
        return self._outputs(packed, rows)

    def head(self, hidden_RE: Tensor) -> Tensor:
        """Compute the logits [R, V] of normed hidden states."""
        head = self.get_output_embeddings()
        logits_RV: Tensor = F.linear(hidden_RE, head.weight) if self._has_tied_head else head(hidden_RE)
        return logits_RV

    @contextmanager
    def balancing(self) -> Iterator["LoadBalance"]:
        """Watch the routers of all mixtures in the forward passes of a block of code."""
        balance = LoadBalance()
        mixtures = [block for block in self.blocks if isinstance(block, Block) and block.experts is not None]
        hooks = [block.part("router").register_forward_hook(partial(balance.add, block)) for block in mixtures]
        try:
            yield balance
        finally:
            for hook in hooks:
                hook.remove()

    def recompute_blocks(self) -> None:
        """Keep no activations within blocks from now on: backward computes each block a second time."""
        for module in self.modules():
            if isinstance(module, Block):
                module.is_recomputed = True

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; those of adapters may have another."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        blocks: nn.ModuleList = attrgetter(self._names.blocks)(self)
        return blocks

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the head."""
        norm: nn.Module = attrgetter(self._names.outside["final_norm"])(self)
        return norm

    def get_input_embeddings(self) -> nn.Module:
        embedding: nn.Module = attrgetter(self._names.outside["embedding"])(self)
        return embedding

    def get_output_embeddings(self) -> nn.Embedding | nn.Linear:
        role = "embedding" if self._has_tied_head else "head"
        head: nn.Embedding | nn.Linear = attrgetter(self._names.outside[role])(self)
        return head

    def _outputs(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        cos_T1D, sin_T1D = self.rotary.at(packed.positions(), longest=packed.longest)
        *blocks, last = self.blocks
        plan = attention_pattern(packed)
        hidden_TE = self.get_input_embeddings()(packed.tokens_T)
        for block in blocks:
            hidden_TE = block(hidden_TE, cos_T1D, sin_T1D, plan)
        last_plan = plan if rows is None else attention_pattern(packed, rows)
        # Rebinding the name frees the last layer's input.
        hidden_TE = last(hidden_TE, cos_T1D, sin_T1D, last_plan, rows)
        normed_TE: Tensor = self.final_norm(hidden_TE)
        return normed_TE

    @classmethod
    def _init_weights(cls, module: nn.Module) -> None:
        """Apply LLaDA's "mitchell" init: normal, cut at three deviations, 1/√fan-in, smaller with depth."""
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Projection):
            cls._init_normal(module.weight, module.init_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            cls._init_normal(module.weight, module.embedding_dim**-0.5)

    @staticmethod
    def _init_normal(weight: Tensor, std: float) -> None:
        nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)

    @staticmethod
    def _full(input_ids: Tensor) -> tuple[int, ...]:
        return (input_ids.shape[1],) * input_ids.shape[0]
