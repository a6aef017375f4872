"""The samples of each optimizer step, and the rows of it that one process computes.

Everything about a step is decided for its whole batch: order, length, normaliser. Processes and micro-batches only
divide it, so the loss is the same however it is divided.

Shape suffixes: B rows of a batch or a part of one, L positions of a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from llada_core.diffusion.loss import sequence_normalizer, token_normalizer
from llada_core.diffusion.noise import noise_levels, stratified_noise_levels
from training.data.order import EpochOrder, MixtureOrder, Order
from training.data.samples import Mixture, Samples

LossNorm = Literal["token", "sequence"]
# From the number of each row's targets to the divisor of its loss, for all rows of a step.
Normalizer = Callable[[Tensor], Tensor]
NORMALIZERS: dict[LossNorm, Normalizer] = {"token": token_normalizer, "sequence": sequence_normalizer}


@dataclass(frozen=True, slots=True)
class Batching:
    """Settings for grouping samples into steps.

    Attributes:
        batch_size: samples of a step.
        eos_id: the token that pads a row.
        group_by_length: group rows of similar length: less padding to compute, and less of it to learn from.
        stratified_noise: spread the noise levels of a step evenly over (0, 1); each is drawn by itself otherwise.
        repeats: steps in a row that have the same samples.
    """

    batch_size: int
    seed: int
    eos_id: int
    group_by_length: bool = False
    stratified_noise: bool = False
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class StepRows:
    """The samples of one optimizer step, before they are laid out as rows.

    Attributes:
        step: counted from 0.
        samples_B: sample indices.
        epochs_B: how often each sample has been seen before.
        lengths_B: tokens of each sample.
        suffix_lengths_B: tokens of it that follow its target.
    """

    step: int
    samples_B: Tensor
    epochs_B: Tensor
    lengths_B: Tensor
    suffix_lengths_B: Tensor


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The position at which each row's targets stop, and the length of all rows."""

    target_stops_B: Tensor
    length: int


# A stage's rule for cutting and padding the rows of a step.
LayOut = Callable[[StepRows], RowLayout]


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One optimizer step before any token is read; the noise level t of each row is float64.

    Attributes:
        repeat: the steps in a row before this one that have the same samples.
    """

    samples_B: Tensor
    epochs_B: Tensor
    noise_levels_B: Tensor
    target_starts_B: Tensor
    target_stops_B: Tensor
    normalizer_B: Tensor
    length: int
    repeat: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.samples_B)

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows, padding included."""
        return self.length * self.num_rows


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one optimizer step, padded with EOS to one length.

    Attributes:
        samples_B: index of each row's sample.
        epochs_B: how often the sample has been seen before; with its index it determines which positions are masked.
        noise_levels_B: the noise level t of each row, float64.
        tokens_BL: clean token ids.
        target_starts_B, target_stops_B: the positions from start to stop may be masked.
        normalizer_B: divisor of each row's loss; accounts for the whole optimizer step.
        spans: lengths of the parts of each row that attend only within themselves.
        repeat: see `StepPlan`.
    """

    samples_B: Tensor
    epochs_B: Tensor
    noise_levels_B: Tensor
    tokens_BL: Tensor
    target_starts_B: Tensor
    target_stops_B: Tensor
    normalizer_B: Tensor
    spans: tuple[tuple[int, ...], ...]
    repeat: int = 0

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        names = (
            "samples_B",
            "epochs_B",
            "noise_levels_B",
            "tokens_BL",
            "target_starts_B",
            "target_stops_B",
            "normalizer_B",
        )
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


class BatchPlanner:
    """Plans any step of an endless pass over `samples`.

    Attributes:
        batch_size: samples of a step.
        repeats: steps in a row that have the same samples.
    """

    def __init__(self, samples: Samples, batching: Batching, lay_out: LayOut, normalizer: Normalizer) -> None:
        self._samples = samples
        self._batching = batching
        self._lay_out = lay_out
        self._normalizer = normalizer
        self._order = _order_of(samples, batching)
        self.batch_size = self._order.batch_size
        self.repeats = batching.repeats

    def plan(self, step: int) -> StepPlan:
        """Plan the optimizer step `step`, counted from 0."""
        number, repeat = divmod(step, self.repeats)
        return replace(self.plan_rows(step, *self._order.rows(number)), repeat=repeat)

    def plan_rows(self, step: int, indices: np.ndarray, epochs: np.ndarray) -> StepPlan:
        """Plan a step with the given samples, each in the given epoch; int64 [B]."""
        samples_B, epochs_B = torch.from_numpy(indices), torch.from_numpy(epochs)
        lengths_B = torch.from_numpy(self._samples.lengths[indices])
        suffix_lengths_B = torch.from_numpy(self._samples.suffix_lengths[indices])
        layout = self._lay_out(StepRows(step, samples_B, epochs_B, lengths_B, suffix_lengths_B))
        starts_B = torch.from_numpy(self._samples.prompt_lengths[indices])
        normalizer_B = self._normalizer(layout.target_stops_B - starts_B)
        seed = self._batching.seed
        if self._batching.stratified_noise:
            levels_B = stratified_noise_levels(seed, step, len(samples_B))
        else:
            levels_B = noise_levels(seed, samples_B, epochs_B)
        return StepPlan(samples_B, epochs_B, levels_B, starts_B, layout.target_stops_B, normalizer_B, layout.length)

    def collate(self, plan: StepPlan, part: slice) -> Batch:
        """Read the tokens of some rows of a step."""
        rows = [self._samples[index] for index in plan.samples_B[part].tolist()]
        # What is given after the target belongs to the row too.
        stops = [stop + row.suffix_length for stop, row in zip(plan.target_stops_B[part].tolist(), rows, strict=True)]
        tokens_BL = np.full((len(rows), plan.length), self._batching.eos_id, dtype=np.int64)
        for row, sample, stop in zip(tokens_BL, rows, stops, strict=True):
            row[: min(stop, len(sample.tokens))] = sample.tokens[:stop]
        return Batch(
            plan.samples_B[part],
            plan.epochs_B[part],
            plan.noise_levels_B[part],
            torch.from_numpy(tokens_BL),
            plan.target_starts_B[part],
            plan.target_stops_B[part],
            plan.normalizer_B[part],
            tuple(_fit(sample.spans, stop) for sample, stop in zip(rows, stops, strict=True)),
            plan.repeat,
        )


def _order_of(samples: Samples, batching: Batching) -> Order:
    size, seed = batching.batch_size, batching.seed
    if isinstance(samples, Mixture):
        return MixtureOrder(samples.sizes, samples.shares, batch_size=size, seed=seed)
    return EpochOrder(samples.lengths, batch_size=size, seed=seed, group_by_length=batching.group_by_length)


def _fit(spans: Sequence[int], length: int) -> tuple[int, ...]:
    """The spans of a row cut or padded to `length`; padding belongs to the last span."""
    fitted, start = [], 0
    for span in spans:
        fitted.append(min(span, length - start))
        start += span
        if start >= length:
            return tuple(fitted)
    fitted[-1] += length - start
    return tuple(fitted)
