"""Unsupervised classifier-free guidance (arXiv:2502.09992, appendix A.2)."""

from torch import Tensor


def guide(conditional_RV: Tensor, unconditional_RV: Tensor, cfg_scale: float) -> Tensor:
    """Push logits away from those of a sequence whose fixed tokens are masked: u + (scale + 1)(c - u)."""
    return unconditional_RV + (cfg_scale + 1) * (conditional_RV - unconditional_RV)


def num_passes(cfg_scale: float) -> int:
    """Return how many forward passes a step takes: guidance adds an unconditional one to the conditional one."""
    return 2 if cfg_scale else 1
