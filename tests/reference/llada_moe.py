"""LLaDA-MoE's network as published, line for line in plain torch: what benchmarks compare with.

It follows `modeling_lladamoe.py`, whose mixture is that of OLMoE: a loop over all experts, each of which gathers its
tokens and adds what it makes of them. The golden vectors recorded from that code check it.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.architectures.llada_moe import LLaDAMoEConfig


class ReferenceMoE:
    """The published network on the tensors of a checkpoint with a tensor for each expert."""

    def __init__(self, config: LLaDAMoEConfig, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self._weights = weights

    def __call__(self, ids_BL: Tensor, attention_mask_BL: Tensor | None = None) -> Tensor:
        """Logits [B, L, V]; 0 in the mask is padding, which nobody sees."""
        bias = None if attention_mask_BL is None else attention_mask_BL.bool()[:, None, None, :]
        x = F.embedding(ids_BL, self._weights["model.embed_tokens.weight"])
        for depth in range(self.config.num_hidden_layers):
            name = f"model.layers.{depth}."
            x = x + self._attention(self._norm(x, name + "input_layernorm.weight"), name + "self_attn.", bias)
            normed = self._norm(x, name + "post_attention_layernorm.weight")
            assert self.config.moe_layer_freq is not None
            is_mixture = self.config.moe_layer_freq[depth] == 1
            y = self._mixture(normed, name + "mlp.") if is_mixture else self._feed_forward(normed, name + "mlp.")
            if is_mixture and self.config.shared_expert_intermediate_size is not None:
                y = y + self._feed_forward(normed, name + "shared_expert.")
            x = x + y
        head = "model.embed_tokens" if self.config.tie_word_embeddings else "lm_head"
        return F.linear(self._norm(x, "model.norm.weight"), self._weights[head + ".weight"])

    def _attention(self, x: Tensor, name: str, bias: Tensor | None) -> Tensor:
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        q, k, v = (
            F.linear(x, self._weights[f"{name}{part}_proj.weight"]).unflatten(-1, (count, -1)).transpose(1, 2)
            for part, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
        )
        if self.config.qk_layernorm:
            q, k = self._norm(q, name + "q_norm.weight"), self._norm(k, name + "k_norm.weight")
        q, k = self._rotate(q), self._rotate(k)
        k, v = (y.repeat_interleave(heads // kv_heads, dim=1, output_size=heads) for y in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        return F.linear(attended, self._weights[name + "o_proj.weight"])

    def _mixture(self, x: Tensor, name: str) -> Tensor:
        tokens = x.flatten(0, 1)
        weights = F.linear(tokens, self._weights[name + "gate.weight"]).softmax(dim=-1, dtype=torch.float32)
        if self.config.moe_router_enable_expert_bias:
            weights = weights + self._weights[name + "expert_bias"]
        weights, chosen = weights.topk(self.config.num_experts_per_tok, dim=-1)
        weights = weights.to(x.dtype)
        output = torch.zeros_like(tokens)
        is_chosen = F.one_hot(chosen, num_classes=self.config.num_experts).permute(2, 1, 0)
        for expert in range(self.config.num_experts):
            place, rows = torch.where(is_chosen[expert])
            made = self._feed_forward(tokens[None, rows].squeeze(0), f"{name}experts.{expert}.")
            output.index_add_(0, rows, (made * weights[rows, place, None]).to(x.dtype))
        return output.view_as(x)

    def _feed_forward(self, x: Tensor, name: str) -> Tensor:
        gate, up, down = (self._weights[f"{name}{part}_proj.weight"] for part in ("gate", "up", "down"))
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return self._weights[name] * y.to(x.dtype)

    def _rotate(self, x: Tensor) -> Tensor:
        width = int(x.shape[-1] * self.config.partial_rotary_factor)
        frequencies = 1.0 / (self.config.rope_theta ** (torch.arange(0, width, 2).float() / width))
        angles = torch.outer(torch.arange(x.shape[-2]).float(), frequencies).repeat(1, 2)
        y, rest = x[..., :width], x[..., width:]
        left, right = y.chunk(2, dim=-1)
        rotated = y * angles.cos().to(x.dtype) + torch.cat((-right, left), dim=-1) * angles.sin().to(x.dtype)
        return torch.cat((rotated, rest), dim=-1)
