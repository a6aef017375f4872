"""The device and dtype of a model, resolved from the names that users write."""

from dataclasses import dataclass

import torch

from llada_core.errors import InvalidParameterError
from llada_core.model.backends.cpu import QUANTIZATIONS, Quantization
from llada_core.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Placement:
    """The device and dtype of a model.

    Attributes:
        dtype: None for the checkpoint's own.
    """

    device: torch.device
    dtype: torch.dtype | None
    quantization: Quantization = "none"

    @classmethod
    def of(cls, device: str, dtype: str, quantization: Quantization = "none") -> "Placement":
        """Resolve the names that users write.

        Raises:
            InvalidParameterError: an unknown name, or a combination that is not supported.
        """
        if quantization not in QUANTIZATIONS:
            raise InvalidParameterError(
                f"quantization is {quantization!r}; it must be one of {', '.join(QUANTIZATIONS)}", "quantization"
            )
        torch_device = _resolve_device(device)
        if torch_device.type != "cpu" and quantization != "none":
            raise InvalidParameterError(
                f"quantization is {quantization!r}; it must be none on {torch_device.type}", "quantization"
            )
        if dtype == "auto" and torch_device.type == "cpu":
            dtype = "float32" if quantization == "none" else "bfloat16"
        return cls(torch_device, _resolve_dtype(dtype), quantization)

    def dtype_for(self, config: ModelConfig) -> torch.dtype:
        """Return the dtype to compute in."""
        if self.dtype is not None:
            return self.dtype
        return config.dtype if isinstance(config.dtype, torch.dtype) else torch.bfloat16


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InvalidParameterError(f"device is {name!r}; it must be auto, cpu, cuda, cuda:N or mps", "device")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidParameterError(f"device is {name!r}; this machine has no CUDA device", "device")
    return device


def _resolve_dtype(name: str) -> torch.dtype | None:
    dtypes = {"auto": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise InvalidParameterError(f"dtype is {name!r}; it must be one of {', '.join(dtypes)}", "dtype")
    return dtypes[name]
