from llada_core.diffusion.likelihood import LogLikelihood, log_likelihood
from llada_core.diffusion.loss import denoising_loss, pretrain_normalizer, sft_normalizer
from llada_core.diffusion.noise import Corrupted, corrupt, corruption_draws, noise_levels

__all__ = [
    "Corrupted",
    "LogLikelihood",
    "corrupt",
    "corruption_draws",
    "denoising_loss",
    "log_likelihood",
    "noise_levels",
    "pretrain_normalizer",
    "sft_normalizer",
]
