from llada_core.sampling.canvas import Canvas, Gap
from llada_core.sampling.events import Change, DenoisingStep, Prediction
from llada_core.sampling.generate import GenerationResult, denoise, generate
from llada_core.sampling.params import PRESETS, GenerationParams
from llada_core.sampling.remasking import REMASKING
from llada_core.sampling.sampler import Sampler

__all__ = [
    "PRESETS",
    "REMASKING",
    "Canvas",
    "Change",
    "DenoisingStep",
    "Gap",
    "GenerationParams",
    "GenerationResult",
    "Prediction",
    "Sampler",
    "denoise",
    "generate",
]
