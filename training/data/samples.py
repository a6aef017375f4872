"""Training samples over memory-mapped shards.

A sample's index is its identity: noise and order are functions of (seed, index, epoch), so a resumed run sees the same
batches as an uninterrupted one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from llada_core.counter_noise import Purpose, uniform
from training.data.shards import Shard
from training.errors import DataError


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids, of which only the target may be masked: what is neither prompt nor suffix.

    Attributes:
        prompt_length, suffix_length: tokens at the beginning and at the end that are given.
        spans: lengths of the parts that attend only within themselves.
    """

    tokens: np.ndarray
    prompt_length: int
    suffix_length: int
    spans: tuple[int, ...]


class Samples(Protocol):
    """A sequence of samples, whose lengths are known without reading a token.

    Attributes:
        lengths: int64 [N], tokens of each sample.
        prompt_lengths, suffix_lengths: int64 [N].
        groups: int64 [N]; samples that share text, as the turns of one dialogue do, have the same number.
        digest: hash of the shards; the same data in another place or under another name has the same.
    """

    lengths: np.ndarray
    prompt_lengths: np.ndarray
    suffix_lengths: np.ndarray
    groups: np.ndarray
    digest: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


class _Stream:
    """The tokens of several shards, read as if they lay end to end."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = [shard for shard in shards if len(shard.ends)]
        sizes = [int(shard.ends[-1]) for shard in self._shards]
        self._starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        self.ends = np.concatenate(
            [shard.ends + start for shard, start in zip(self._shards, self._starts, strict=False)]
            or [np.empty(0, np.int64)]
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = int(self._starts[first])
            part = self._shards[first].tokens[start - offset : stop - offset]
            parts.append(part)
            start, first = start + len(part), first + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class PackedDocuments:
    """Documents laid end to end, each ended by EOS, cut into samples of `max_length` tokens; the tail is dropped."""

    def __init__(self, shards: Sequence[Shard], *, max_length: int, attend_across_documents: bool = True) -> None:
        self._stream = _Stream(shards)
        self._max_length = max_length
        self._attend_across_documents = attend_across_documents
        self.lengths = np.full(len(self._stream) // max_length, max_length, dtype=np.int64)
        self.prompt_lengths = self.suffix_lengths = np.zeros_like(self.lengths)
        self.groups = np.arange(len(self.lengths))
        self.digest = " ".join(shard.notes.digest for shard in shards)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        start = index * self._max_length
        stop = start + self._max_length
        return Sample(self._stream.read(start, stop), 0, 0, self._spans(start, stop))

    def _spans(self, start: int, stop: int) -> tuple[int, ...]:
        if self._attend_across_documents:
            return (stop - start,)
        ends = self._stream.ends
        inside = ends[np.searchsorted(ends, start, side="right") : np.searchsorted(ends, stop, side="left")]
        return tuple(np.diff(np.concatenate(([start], inside, [stop]))).tolist())


class Mixture:
    """Parts that lie one after the other, each with a share of every batch.

    Attributes:
        sizes: samples of each part.
        shares: whole numbers in the proportion of the shares.
    """

    def __init__(self, parts: Sequence[Samples], shares: Sequence[int]) -> None:
        self._parts = parts
        self.sizes = [len(part) for part in parts]
        self.shares = shares
        self._starts = np.cumsum(self.sizes) - self.sizes
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.prompt_lengths = np.concatenate([part.prompt_lengths for part in parts])
        self.suffix_lengths = np.concatenate([part.suffix_lengths for part in parts])
        self.groups = _side_by_side([part.groups for part in parts])
        self.digest = ", ".join(f"{share}: {part.digest}" for share, part in zip(shares, parts, strict=True))

    def without(self, is_left_out: np.ndarray) -> "Mixture":
        """The mixture without some samples, bool [N]; the shares stay.

        Raises:
            DataError: a part has no other samples.
        """
        parts = np.split(~is_left_out, self._starts[1:])
        if not all(is_kept.any() for is_kept in parts):
            raise DataError("--val-size holds out all samples of a source that has a share; give --val-data-path")
        kept = [Subset(part, np.flatnonzero(is_kept)) for part, is_kept in zip(self._parts, parts, strict=True)]
        return Mixture(kept, self.shares)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[part][index - int(self._starts[part])]


class Dialogues:
    """Samples as they were tokenised, each with a target after a prompt or between two given texts."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._stream = _Stream(shards)
        self.lengths = np.diff(self._stream.ends, prepend=0)
        self.prompt_lengths = np.concatenate([shard.prompt_lengths for shard in shards]).astype(np.int64)
        self.suffix_lengths = np.concatenate([shard.suffix_lengths for shard in shards]).astype(np.int64)
        self.groups = _side_by_side([shard.records for shard in shards])
        self.digest = " ".join(shard.notes.digest for shard in shards)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        stop = int(self._stream.ends[index])
        length = int(self.lengths[index])
        prompt_length, suffix_length = int(self.prompt_lengths[index]), int(self.suffix_lengths[index])
        return Sample(self._stream.read(stop - length, stop), prompt_length, suffix_length, (length,))


class Pairs(Dialogues):
    """Samples of two spans: a row with its target, and as its suffix what belongs to it: another answer to the prompt,
    or the steps that wrote the answer.
    """

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return replace(sample, spans=(len(sample.tokens) - sample.suffix_length, sample.suffix_length))


class Subset:
    """Some of the samples, in their order."""

    def __init__(self, samples: Samples, indices: np.ndarray) -> None:
        self._samples = samples
        self._indices = indices
        self.lengths = samples.lengths[indices]
        self.prompt_lengths = samples.prompt_lengths[indices]
        self.suffix_lengths = samples.suffix_lengths[indices]
        self.groups = samples.groups[indices]
        self.digest = f"{samples.digest} [{hashlib.sha256(indices.tobytes()).hexdigest()[:16]}]"

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[int(self._indices[index])]


def hold_out(samples: Samples, size: float, *, seed: int) -> tuple[Samples, Samples]:
    """Divide samples into those to train on and those to validate with; the turns of a dialogue stay together.

    What remains of a mixture keeps its shares.

    Args:
        size: groups to hold out: their number, or below 1 their share.

    Raises:
        DataError: nothing would be left for one of the two.
    """
    groups = np.unique(samples.groups)
    count = round(size * len(groups)) if size < 1 else int(size)
    if not 0 < count < len(groups):
        raise DataError(f"--val-size {size:g} of {len(groups):,} records holds {count:,} out; each side needs some")
    order = uniform(seed, Purpose.VALIDATION, torch.from_numpy(groups)).argsort().numpy()
    is_held_out = np.isin(samples.groups, groups[order[:count]])
    validation = Subset(samples, np.flatnonzero(is_held_out))
    if isinstance(samples, Mixture):
        return samples.without(is_held_out), validation
    return Subset(samples, np.flatnonzero(~is_held_out)), validation


def _side_by_side(groups: Sequence[np.ndarray]) -> np.ndarray:
    """The groups of several parts, numbered so that no two parts share one."""
    numbers, first = [], 0
    for part in groups:
        numbers.append(part + first)
        first += int(part.max()) + 1 if len(part) else 0
    return np.concatenate(numbers) if numbers else np.empty(0, np.int64)
