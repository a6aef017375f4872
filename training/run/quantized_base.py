"""The frozen base under LoRA in 8 or 4 bits (QLoRA, arXiv:2305.14314), stored in the formats of `bitsandbytes`.

`nf4`: 16 levels for blocks of 64 weights, whose scales are quantized in turn, 4.13 bits a weight. `int8`: 256 levels,
denser near zero, for blocks of 256, 8.13 bits. A layer's weight is dequantized where it is used, in forward and again
in backward, and never kept: the arithmetic is that of a base that has the dequantized weights.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.run.low_bit import import_for

BaseDtype = Literal["int8", "nf4"]

_NF4_BLOCK, _INT8_BLOCK, _SCALE_BLOCK = 64, 256, 256
# Codes, and scales in float32; those of nf4 in 8 bits, with a scale in float32 for every 256.
BYTES_PER_WEIGHT: dict[BaseDtype, float] = {
    "int8": 1 + 4 / _INT8_BLOCK,
    "nf4": 0.5 + (1 + 4 / _SCALE_BLOCK) / _NF4_BLOCK,
}


class QuantizedLinear(nn.Linear):
    """A frozen linear map without bias.

    Attributes:
        weight: uint8 codes, of which nf4 has two in a byte.
    """

    def __init__(self, weight: Tensor, base_dtype: BaseDtype) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        bitsandbytes = import_for("--base-dtype", "bitsandbytes.functional")
        if base_dtype == "nf4":
            codes, state = bitsandbytes.quantize_4bit(
                weight, blocksize=_NF4_BLOCK, quant_type="nf4", compress_statistics=True
            )
        else:
            codes, state = bitsandbytes.quantize_blockwise(weight, blocksize=_INT8_BLOCK)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self._state: Any = state
        self._dequantize: Callable[[Tensor, Any], Tensor] = (
            bitsandbytes.dequantize_4bit if base_dtype == "nf4" else bitsandbytes.dequantize_blockwise
        )

    def dequantized(self) -> Tensor:
        """The weight, [out_features, in_features], in the dtype that it had."""
        return self._dequantize(self.weight, self._state).view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map in the dtype of autocast, or of `x`."""
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        result: Tensor = _Map.apply(x, self.dequantized)
        return result

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        super()._apply(fn, recurse)
        self._state.to(self.weight.device)
        return self


class _Map(torch.autograd.Function):
    """A linear map that keeps neither its input nor its weight for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dequantized: Callable[[], Tensor]) -> Tensor:
        ctx.dequantized = dequantized
        return functional.linear(x, dequantized().to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ ctx.dequantized().to(gradient.dtype), None


def quantize_linears(module: nn.Module, base_dtype: BaseDtype, *, device: torch.device) -> None:
    """Put a `QuantizedLinear` on `device` in the place of every linear map in the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            # One by one: a whole model in two forms would not fit where the quantized one does.
            setattr(module, name, QuantizedLinear(child.weight.detach().to(device), base_dtype))
        else:
            quantize_linears(child, base_dtype, device=device)
