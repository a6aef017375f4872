"""Diffusion language models: the mask predictor, the forward process and the reverse process.

The public names are imported when they are first used, so that `import llada_core.errors` starts neither torch nor
transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llada_core.checkpoint.load import DEMO_FOLDER, load_checkpoint, load_model, load_tokenizer
    from llada_core.errors import InvalidParameterError, UnsupportedCheckpointError
    from llada_core.llm import LLM
    from llada_core.sampling.events import DenoisingStep
    from llada_core.sampling.generate import GenerationResult, denoise, generate
    from llada_core.sampling.params import GenerationParams

_MODULES = {
    "LLM": "llm",
    "DEMO_FOLDER": "checkpoint.load",
    "DenoisingStep": "sampling.events",
    "GenerationParams": "sampling.params",
    "GenerationResult": "sampling.generate",
    "InvalidParameterError": "errors",
    "UnsupportedCheckpointError": "errors",
    "denoise": "sampling.generate",
    "generate": "sampling.generate",
    "load_checkpoint": "checkpoint.load",
    "load_model": "checkpoint.load",
    "load_tokenizer": "checkpoint.load",
}

__all__ = [
    "DEMO_FOLDER",
    "LLM",
    "DenoisingStep",
    "GenerationParams",
    "GenerationResult",
    "InvalidParameterError",
    "UnsupportedCheckpointError",
    "denoise",
    "generate",
    "load_checkpoint",
    "load_model",
    "load_tokenizer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
