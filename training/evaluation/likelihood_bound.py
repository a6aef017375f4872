"""The bound on the negative log-likelihood of data (arXiv:2502.09992, equation 6) over a grid of noise levels.

Each sample is scored at evenly spaced numbers of masked tokens, with an offset of its own, and masks that depend only
on seed and sample. The variance is low, and every run gives the same number.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from llada_core.diffusion.likelihood import AnswerScorer
from llada_core.model.network import Network
from training.data.samples import Sample, Samples
from training.distributed import World

_BINS = 10


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A bound and where it comes from.

    Attributes:
        nll: nats per token.
        standard_error: of `nll`, from the differences between samples; None for a single one.
        by_noise_level: the mean cross-entropy in each tenth of the masking ratio.
    """

    nll: float
    standard_error: float | None
    num_samples: int
    num_tokens: int
    by_noise_level: dict[str, float]

    def __str__(self) -> str:
        """The bound and its standard error, with the digits that mean something."""
        if self.standard_error is None:
            return f"{self.nll:.4f}"
        digits = 4 if self.standard_error == 0 else min(6, max(1, 1 - math.floor(math.log10(self.standard_error))))
        return f"{self.nll:.{digits}f} ± {self.standard_error:.{digits}f}"

    @property
    def perplexity(self) -> float:
        """The bound on the perplexity, e to the power of `nll`."""
        return math.exp(min(self.nll, 700.0))


def evaluate(
    model: Network,
    samples: Samples,
    *,
    num_samples: int,
    noise_levels: int,
    seed: int,
    world: World,
    on_progress: Callable[[int], None] | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Score samples, divided among the processes; a prompt is not scored.

    Args:
        num_samples: samples to score, evenly spread over all of them.
        noise_levels: points of the grid for each sample.
        is_stopping: called before every sample, on all processes at once; True ends the evaluation.

    Returns:
        The same on every process; None if `is_stopping` ended it.
    """
    was_training = model.training
    model.eval()
    sums = torch.zeros(6, dtype=torch.float64)
    levels = torch.zeros(2, _BINS, dtype=torch.float64)
    num_samples = min(num_samples, len(samples))
    for first in range(0, num_samples, world.size):
        if is_stopping():
            model.train(was_training)
            return None
        place = first + world.rank
        index = place * len(samples) // num_samples
        for prompt, answer, suffix in _scored_parts(samples[index]) if place < num_samples else ():
            scorer = AnswerScorer(model, prompt, answer, suffix, mask_id=model.special_tokens.mask_id)
            estimates = scorer.estimates(scorer.masks(noise_levels, seed=seed + index))
            nll, count = -float(estimates.nats_N.mean()), len(answer)
            sums += torch.tensor([1, nll, count, nll**2, nll * count, count**2], dtype=torch.float64)
            bins = (estimates.shares_NP * _BINS).ceil().long().flatten() - 1
            nats = -(estimates.nats_NP / estimates.lengths_P).flatten()
            levels[0].index_add_(0, bins, nats)
            levels[1].index_add_(0, bins, torch.ones_like(nats))
        if on_progress is not None:
            on_progress(min(first + world.size, num_samples))
    model.train(was_training)
    nll, standard_error, num_tokens = _ratio(world.sum(sums))
    return Evaluation(nll, standard_error, num_samples, num_tokens, by_level(*world.sum(levels)))


def _ratio(sums: torch.Tensor) -> tuple[float, float | None, int]:
    """Nats per token, its standard error as that of a ratio of means (the delta method), and the number of tokens."""
    number, nll, count, nll_squared, product, count_squared = sums.tolist()
    ratio = nll / count
    if number < 2:
        return ratio, None, int(count)
    squares = max(0.0, nll_squared - 2 * ratio * product + ratio**2 * count_squared)
    return ratio, math.sqrt(squares * number / (number - 1)) / count, int(count)


def _scored_parts(sample: Sample) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Prompt, target and suffix of a sample; packed documents that attend only to themselves are scored one by one."""
    start = 0
    for span in sample.spans:
        tokens = sample.tokens[start : start + span].tolist()
        prompt_length = sample.prompt_length if start == 0 else 0
        target_stop = span - sample.suffix_length
        yield tokens[:prompt_length], tokens[prompt_length:target_stop], tokens[target_stop:]
        start += span


def by_level(sums: torch.Tensor, counts: torch.Tensor) -> dict[str, float]:
    """The mean of each tenth that has a count, named by its upper end: "0.1" … "1.0"."""
    means = zip((sums / counts.clamp(min=1)).tolist(), counts.tolist(), strict=True)
    return {f"{(i + 1) / len(sums):.1f}": mean for i, (mean, count) in enumerate(means) if count}
