from llada_core.diffusion.likelihood import LogLikelihood, log_likelihood
from llada_core.diffusion.loss import row_losses, sequence_normalizer, token_normalizer
from llada_core.diffusion.noise import Corrupted, corrupt, corruption_draws, noise_levels

__all__ = [
    "Corrupted",
    "LogLikelihood",
    "corrupt",
    "corruption_draws",
    "log_likelihood",
    "noise_levels",
    "row_losses",
    "sequence_normalizer",
    "token_normalizer",
]
