"""LLaDA as published, line for line in plain torch: what benchmarks compare with. Not fast, and not meant to be.

The network follows `modeling_llada.py`, the loop `generate.py` of ML-GSAI/LLaDA; the golden vectors, which were
recorded from that code, check both. Logits of all positions and all words, every step, in the model's dtype.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.architectures.llada.config import LLaDAConfig

Predictor = Callable[[Tensor, Tensor | None], Tensor]
"""Logits [B, L, V] of ids [B, L]; 0 in the mask is padding."""


class ReferenceModel:
    """The published network on the tensors of a checkpoint."""

    def __init__(self, config: LLaDAConfig, weights: Mapping[str, Tensor]) -> None:
        self.config = config
        self._weights = weights
        self.dtype = weights["model.transformer.wte.weight"].dtype

    def __call__(self, ids_BL: Tensor, attention_mask_BL: Tensor | None = None) -> Tensor:
        """Logits [B, L, V]; 0 in the mask is padding, which nobody sees."""
        batch_size, length = ids_BL.shape
        bias = None
        if attention_mask_BL is not None and not attention_mask_BL.bool().all():
            bias = attention_mask_BL.bool()[:, None, None, :].expand(batch_size, 1, length, length)
            # A padding row sees something, or its softmax would be over nothing.
            bias = bias | ~attention_mask_BL.bool()[:, None, :, None]
        x = F.embedding(ids_BL, self._weights["model.transformer.wte.weight"])
        for depth in range(self.config.n_layers):
            x = self._block(x, depth, bias)
        x = self._norm(x, "model.transformer.ln_f.weight")
        head = "wte" if self.config.weight_tying else "ff_out"
        return F.linear(x, self._weights[f"model.transformer.{head}.weight"])

    def _block(self, x: Tensor, depth: int, bias: Tensor | None) -> Tensor:
        name = f"model.transformer.blocks.{depth}."
        normed = self._norm(x, name + "attn_norm.weight")
        heads = {"q_proj": self.config.n_heads, "k_proj": self.config.n_kv_heads, "v_proj": self.config.n_kv_heads}
        q, k, v = (
            F.linear(normed, self._weights[f"{name}{part}.weight"]).unflatten(-1, (count, -1)).transpose(1, 2)
            for part, count in heads.items()
        )
        q, k = self._rotate(q), self._rotate(k)
        groups = self.config.n_heads // k.shape[1]
        k, v = (y.repeat_interleave(groups, dim=1, output_size=self.config.n_heads) for y in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        x = x + F.linear(attended, self._weights[name + "attn_out.weight"])
        normed = self._norm(x, name + "ff_norm.weight")
        gate = F.silu(F.linear(normed, self._weights[name + "ff_proj.weight"]))
        up = F.linear(normed, self._weights[name + "up_proj.weight"])
        return x + F.linear(gate * up, self._weights[name + "ff_out.weight"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return self._weights[name] * y.to(x.dtype)

    def _rotate(self, x: Tensor) -> Tensor:
        # Counted from the row's first position, padding included: only differences matter.
        width, length = self.config.head_dim, x.shape[-2]
        frequencies = 1.0 / (self.config.rope_theta ** (torch.arange(0, width, 2).float() / width))
        angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
        y = x.float()
        left, right = y.chunk(2, dim=-1)
        return (y * angles.cos() + torch.cat((-right, left), dim=-1) * angles.sin()).to(x.dtype)


def generate(model: Predictor, prompt_BP: Tensor, attention_mask_BP: Tensor | None = None, **params: Any) -> Tensor:
    """The published sampler at temperature 0 with low-confidence remasking: [B, P + gen_length], prompt included."""
    *_, final = denoise(model, prompt_BP, attention_mask_BP, **params)
    return final


def denoise(
    model: Predictor,
    prompt_BP: Tensor,
    attention_mask_BP: Tensor | None = None,
    *,
    steps: int,
    gen_length: int,
    block_length: int,
    mask_id: int,
    cfg_scale: float = 0.0,
) -> Iterator[Tensor]:
    """The canvas of `generate` after every step."""
    batch_size, prompt_length = prompt_BP.shape
    x = torch.full((batch_size, prompt_length + gen_length), mask_id, dtype=torch.long)
    x[:, :prompt_length] = prompt_BP
    if attention_mask_BP is not None:
        attention_mask_BP = torch.cat((attention_mask_BP, torch.ones(batch_size, gen_length, dtype=torch.long)), 1)
    prompt_index = x != mask_id
    assert gen_length % block_length == 0
    num_blocks = gen_length // block_length
    assert steps % num_blocks == 0
    for block in range(num_blocks):
        start, stop = prompt_length + block * block_length, prompt_length + (block + 1) * block_length
        transfer = num_transfer_tokens(x[:, start:stop] == mask_id, steps // num_blocks)
        for step in range(steps // num_blocks):
            x = _step(model, x, attention_mask_BP, prompt_index, stop, transfer[:, step], mask_id, cfg_scale)
            yield x


@torch.no_grad()
def _step(
    model: Predictor,
    x: Tensor,
    attention_mask: Tensor | None,
    prompt_index: Tensor,
    stop: int,
    transfer_B: Tensor,
    mask_id: int,
    cfg_scale: float,
) -> Tensor:
    mask_index = x == mask_id
    if cfg_scale > 0:
        unconditional = torch.where(prompt_index, mask_id, x)
        mask = None if attention_mask is None else attention_mask.repeat(2, 1)
        conditional_logits, logits = model(torch.cat((x, unconditional)), mask).chunk(2)
        logits = logits + (cfg_scale + 1) * (conditional_logits - logits)
    else:
        logits = model(x, attention_mask)
    x0 = logits.argmax(dim=-1)
    confidence = F.softmax(logits, dim=-1).gather(-1, x0.unsqueeze(-1)).squeeze(-1)
    confidence[:, stop:] = -torch.inf
    x0 = torch.where(mask_index, x0, x)
    confidence = torch.where(mask_index, confidence, -torch.inf)
    chosen = torch.zeros_like(mask_index)
    for row, count in enumerate(transfer_B.tolist()):
        chosen[row, confidence[row].topk(count).indices] = True
    return torch.where(chosen, x0, x)


def num_transfer_tokens(mask_index: Tensor, steps: int) -> Tensor:
    """How many masks of each row each step fills: even, the remainder in front."""
    num_masked = mask_index.sum(dim=1, keepdim=True)
    base, remainder = num_masked // steps, num_masked % steps
    return base + (torch.arange(steps) < remainder).long()
