"""Diffusion language models: the mask predictor, the forward process and the reverse process."""

from llada_core.checkpoint import DEMO_FOLDER, load_checkpoint, load_model, load_tokenizer
from llada_core.errors import InvalidParameterError, UnsupportedCheckpointError
from llada_core.sampling import DenoisingStep, GenerationParams, GenerationResult, denoise, generate

__all__ = [
    "DEMO_FOLDER",
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
