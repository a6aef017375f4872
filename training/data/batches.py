"""Which samples make which optimizer step, and the rows of it that one process computes.

Everything about a step is decided for its whole batch: order, length, normaliser. Processes and micro-batches only cut
it into parts, so however it is cut the loss is the same.

Shape suffixes: B rows of a batch or a part of one, L positions of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.loss import sequence_normalizer, token_normalizer
from training.data.samples import Samples

LossNorm = Literal["token", "sequence"]
_NORMALIZERS = {"token": token_normalizer, "sequence": sequence_normalizer}

# Batches grouped by length are cut from windows of this many batches: little padding, still a random mixture.
_WINDOW_BATCHES = 50

# LLaDA, GUIDELINES "Pre-training": 1 % of the data is cut to a random length. There per batch, here per sample.
_SHARE_OF_CUT_SAMPLES = 0.01


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one optimizer step, padded with EOS to one length.

    Attributes:
        samples_B: the index of each row's sample; with `epoch` it decides the row's noise.
        tokens_BL: clean token ids.
        target_starts_B, target_stops_B: the positions between may be masked: answer and EOS padding in SFT, all of
            a sample in pre-training.
        normalizer_B: what each row's loss is divided by; counts the whole optimizer step.
        spans: for each row the lengths of the parts that see only themselves.
    """

    samples_B: Tensor
    tokens_BL: Tensor
    target_starts_B: Tensor
    target_stops_B: Tensor
    normalizer_B: Tensor
    spans: tuple[tuple[int, ...], ...]
    epoch: int

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("samples_B", "tokens_BL", "target_starts_B", "target_stops_B", "normalizer_B")
        }
        return Batch(**moved, spans=self.spans, epoch=self.epoch)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One optimizer step, before any token is read: its samples, where their targets lie, the length of its rows."""

    indices: np.ndarray
    target_starts_B: Tensor
    target_stops_B: Tensor
    normalizer_B: Tensor
    length: int
    epoch: int


class BatchPlanner:
    """Plans any step of an endless pass over `samples`, epoch after epoch, each in its own order.

    Attributes:
        batch_size: samples of a step; fewer than asked for where there are no more.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        seed: int,
        eos_id: int,
        loss_norm: LossNorm,
        is_sft: bool,
        pad_to: int | None = None,
        group_by_length: bool = False,
    ) -> None:
        """
        Args:
            is_sft: supervise the EOS padding, cut nothing.
            group_by_length: batches of rows of similar length: less padding to compute, and less of it to learn from.
            pad_to: None pads a batch to its longest row. A length lets one batch in three be padded further, up to
                it: short answers then also occur on long canvases, which is what the sampler will show the model.
        """
        self._samples = samples
        self.batch_size = min(batch_size, len(samples))
        self._seed = seed
        self._eos_id = eos_id
        self._normalizer = _NORMALIZERS[loss_norm]
        self._is_sft = is_sft
        self._pad_to = pad_to
        self._group_by_length = group_by_length
        self._order: tuple[int, list[np.ndarray]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches; what is left over of an epoch comes in another one, whose order differs."""
        return len(self._samples) // self.batch_size

    def plan(self, step: int) -> StepPlan:
        """The optimizer step `step`, from 0."""
        epoch, number = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch_order(epoch))
        indices = self._order[1][number]
        starts_B = torch.from_numpy(self._samples.prompt_lengths[indices])
        lengths = self._samples.lengths[indices]
        if self._is_sft:
            length = max(int(lengths.max()), self._padded_length(step))
            stops_B = torch.full((len(indices),), length)
        else:
            stops_B = self._cut(indices, lengths, epoch)
            length = int(stops_B.max())
        return StepPlan(indices, starts_B, stops_B, self._normalizer(stops_B - starts_B), length, epoch)

    def collate(self, plan: StepPlan, part: slice) -> Batch:
        """Read the tokens of some rows of a step."""
        rows = [self._samples[index] for index in plan.indices[part].tolist()]
        stops = plan.target_stops_B[part].tolist()
        tokens_BL = np.full((len(rows), plan.length), self._eos_id, dtype=np.int64)
        for row, sample, stop in zip(tokens_BL, rows, stops, strict=True):
            row[: min(stop, len(sample.tokens))] = sample.tokens[:stop]
        return Batch(
            torch.from_numpy(plan.indices[part]),
            torch.from_numpy(tokens_BL),
            plan.target_starts_B[part],
            plan.target_stops_B[part],
            plan.normalizer_B[part],
            tuple(_fit(sample.spans, stop) for sample, stop in zip(rows, stops, strict=True)),
            plan.epoch,
        )

    def _epoch_order(self, epoch: int) -> list[np.ndarray]:
        """Batches of a random order, or of rows of similar length."""
        shuffled = uniform(self._seed, Purpose.DATA_ORDER, epoch, torch.arange(len(self._samples))).argsort().numpy()
        size, found = self.batch_size, []
        # The remainder of an epoch goes before rows are sorted: after, it would always be the longest ones.
        shuffled = shuffled[: len(shuffled) // size * size]
        if not self._group_by_length:
            return list(shuffled.reshape(-1, size))
        lengths = self._samples.lengths[shuffled]
        for start in range(0, len(shuffled), size * _WINDOW_BATCHES):
            window = slice(start, start + size * _WINDOW_BATCHES)
            by_length = shuffled[window][np.argsort(lengths[window], kind="stable")]
            found += [by_length[i : i + size] for i in range(0, len(by_length), size)]
        order = uniform(self._seed, Purpose.DATA_ORDER, epoch, -1 - torch.arange(len(found))).argsort().tolist()
        return [found[i] for i in order]

    def _cut(self, indices: np.ndarray, lengths: np.ndarray, epoch: int) -> Tensor:
        """Lengths after one sample in a hundred is cut to a random length from 1 to its own."""
        samples_B = torch.from_numpy(indices)
        chosen_B, fraction_B = (uniform(self._seed, Purpose.LENGTH_CUT, samples_B, epoch, which) for which in (0, 1))
        lengths_B = torch.from_numpy(lengths)
        return torch.where(chosen_B < _SHARE_OF_CUT_SAMPLES, 1 + (fraction_B * lengths_B).long(), lengths_B)

    def _padded_length(self, step: int) -> int:
        if self._pad_to is None:
            return 0
        chosen, fraction = (float(uniform(self._seed, Purpose.PADDING, step, which)) for which in (0, 1))
        return int(self._pad_to * fraction) if chosen < 1 / 3 else 0


def _fit(spans: Sequence[int], length: int) -> tuple[int, ...]:
    """The spans of a row that is cut to `length`, or padded to it: padding belongs to the last one."""
    fitted, start = [], 0
    for span in spans:
        fitted.append(min(span, length - start))
        start += span
        if start >= length:
            return tuple(fitted)
    fitted[-1] += length - start
    return tuple(fitted)
