"""LLaDA's mask predictor: a Llama-style transformer without a causal mask (arXiv:2502.09992, section 2.1).

Parameter names are those of the published checkpoints; `ff_out` is both the head and each block's down projection.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.layers import LLaDABlock, Projection, RMSNorm
from llada_core.model.attention import AttentionPlan
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.rotary import RotaryTable
from llada_core.model.shape import ModelShape
from llada_core.text.special_tokens import SpecialTokens


class LLaDATransformer(nn.Module):
    """The modules of the network, under the prefix `model.transformer.` of the published names."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        assert config.embedding_size is not None
        parts: dict[str, nn.Module] = {
            "wte": nn.Embedding(config.embedding_size, config.d_model),
            "blocks": nn.ModuleList(LLaDABlock(config, depth) for depth in range(config.n_layers)),
            "ln_f": RMSNorm(config.d_model, config.rms_norm_eps),
        }
        if not config.weight_tying:
            parts["ff_out"] = Projection(config.d_model, config.embedding_size)
        self.transformer = nn.ModuleDict(parts)


class LLaDAModelLM(PreTrainedModel):
    """The mask predictor: maps token ids, some of them masks, to logits over the vocabulary at every position."""

    config_class = LLaDAConfig
    config: LLaDAConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True

    special_tokens: SpecialTokens
    """The checkpoint's mask, EOS and EoT ids; set by `load_checkpoint`."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config)
        self.model = LLaDATransformer(config)
        self.rotary = RotaryTable(config.head_dim, config.rope_theta)
        self.post_init()

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, return_dict: bool = True
    ) -> MaskedLMOutput | tuple[Tensor]:
        """Compute the logits at every position of a padded batch: the interface of LLaDA's own scripts.

        Args:
            input_ids: [B, L]
            attention_mask: [B, L], 1 = token, 0 = padding on either side. Padding is left out of the computation,
                and its rows of the result are zero.

        Returns:
            `MaskedLMOutput` with `logits` [B, L, V].
        """
        is_token_BL = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
        lengths = tuple(is_token_BL.sum(dim=1).tolist()) if attention_mask is not None else self._full(input_ids)
        hidden_TE = self.hidden_states(PackedTokens(input_ids[is_token_BL], lengths))
        logits_TV = self.head(hidden_TE)
        logits_BLV = logits_TV.new_zeros(*input_ids.shape, logits_TV.shape[-1])
        logits_BLV = logits_BLV.masked_scatter(is_token_BL.unsqueeze(-1), logits_TV)
        return MaskedLMOutput(logits=logits_BLV) if return_dict else (logits_BLV,)

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """Compute the last hidden state, normed, at the requested rows or at every position: [R, E] or [T, E]."""
        cos_T1D, sin_T1D = self.rotary.at(packed.positions(), longest=packed.longest)
        *blocks, last = self.blocks
        plan = AttentionPlan(packed)
        hidden_TE = self.get_input_embeddings()(packed.tokens_T)
        for block in blocks:
            hidden_TE = block(hidden_TE, cos_T1D, sin_T1D, plan)
        last_plan = plan if rows is None else AttentionPlan(packed, rows.counts)
        # Rebinding the name frees the last layer's input.
        hidden_TE = last(hidden_TE, cos_T1D, sin_T1D, last_plan, rows)
        normed_TE: Tensor = self.final_norm(hidden_TE)
        return normed_TE

    def head(self, hidden_RE: Tensor) -> Tensor:
        """Compute the logits [R, V] of normed hidden states; under `weight_tying` the head is the embedding."""
        head = self.get_output_embeddings()
        logits_RV: Tensor = F.linear(hidden_RE, head.weight) if self.config.weight_tying else head(hidden_RE)
        return logits_RV

    @property
    def shape(self) -> ModelShape:
        return self.config.shape

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        blocks: nn.ModuleList = self.model.transformer["blocks"]
        return blocks

    @property
    def final_norm(self) -> nn.Module:
        """The norm between the last block and the head."""
        return self.model.transformer["ln_f"]

    def get_input_embeddings(self) -> nn.Module:
        return self.model.transformer["wte"]

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.transformer["wte"] = value

    def get_output_embeddings(self) -> nn.Embedding | nn.Linear:
        head: nn.Embedding | nn.Linear = self.model.transformer["wte" if self.config.weight_tying else "ff_out"]
        return head

    def _init_weights(self, module: nn.Module) -> None:
        """Apply the published "mitchell" init: normal, cut at three deviations, 1/√fan-in, smaller with depth."""
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Projection):
            self._init_normal(module.weight, module.init_std)
        elif isinstance(module, nn.Embedding):
            self._init_normal(module.weight, self.config.d_model**-0.5)

    @staticmethod
    def _init_normal(weight: Tensor, std: float) -> None:
        nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)

    @staticmethod
    def _full(input_ids: Tensor) -> tuple[int, ...]:
        return (input_ids.shape[1],) * input_ids.shape[0]
