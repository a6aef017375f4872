"""A ragged batch without padding.

Shape suffixes used in this package: B sequences, L positions of one sequence, T positions of the whole batch laid end
to end, R rows at which logits are wanted, Q positions with queries in attention (T or R), E model width, H heads, K
key/value heads, D width of one head, V columns of the head (`embedding_size`). `tokens_T` is one long vector,
`logits_RV` a matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Windows of sequences, end to end. A position attends to its own sequence only, to all of it or block by block.

    A window is the whole sequence unless a cache holds the rest of it, and then any set of positions. Positions outside
    the window are attended to as the cache holds them; those inside replace their cached keys and values.

    Attributes:
        tokens_T: int64 token ids.
        lengths: the length of each window; they sum to T.
        windows: the positions of each window's tokens in their sequence, ascending; None for all windows from 0 on.
        caches: each sequence's cache of keys and values, or None; None if no sequence has one.
        block_lengths: for each sequence whose attention is block-causal, the length of its blocks, which are counted
            from its first position: a position sees its own block and those before it. None for a sequence, or for all
            of them, whose positions see the whole of it.
        has_copies: the second half of the sequences are clean copies of the first, and a noisy position sees the blocks
            before its own in the copy (`doubled_attention`). For training: no windows or caches, all block-causal.
        context: the keys and values of a clean sequence, of which all windows are noisy versions of one part, from the
            start of a block on. A position sees the blocks before its own there (`clean_context`), and its own block in
            its window, which is not written. No caches, all block-causal.
    """

    tokens_T: Tensor
    lengths: tuple[int, ...]
    windows: tuple[np.ndarray, ...] | None = None
    caches: tuple[KVCache | None, ...] | None = None
    block_lengths: tuple[int | None, ...] | None = None
    has_copies: bool = False
    context: KVCache | None = None

    @classmethod
    def doubled(cls, noisy_T: Tensor, clean_T: Tensor, lengths: tuple[int, ...], block_length: int) -> "PackedTokens":
        """Return noisy sequences of these lengths, end to end, with their clean copies behind all of them."""
        lengths = lengths * 2
        block_lengths = (block_length,) * len(lengths)
        return cls(torch.cat((noisy_T, clean_T)), lengths, block_lengths=block_lengths, has_copies=True)

    @classmethod
    def after(cls, context: KVCache, noisy_NL: Tensor, start: int, block_length: int) -> "PackedTokens":
        """Return noisy windows of L positions from `start` on, after the clean blocks before each of theirs."""
        num_windows, length = noisy_NL.shape
        windows, block_lengths = (np.arange(start, start + length),) * num_windows, (block_length,) * num_windows
        lengths = (length,) * num_windows
        return cls(noisy_NL.flatten(), lengths, windows, block_lengths=block_lengths, context=context)

    def positions(self) -> Tensor:
        """Return the position of every token within its own sequence, int64 [T]."""
        return torch.from_numpy(np.concatenate(self.all_windows())).to(self.tokens_T.device, non_blocking=True)

    def padded(self, multiple: int) -> "PackedTokens":
        """Return the batch with a last sequence of padding that makes T a multiple of `multiple`."""
        assert not self.has_copies
        missing = -len(self.tokens_T) % multiple
        if missing == 0:
            return self
        sequences = len(self.lengths)
        return PackedTokens(
            F.pad(self.tokens_T, (0, missing)),
            (*self.lengths, missing),
            (*self.all_windows(), np.arange(missing)),
            (*(self.caches or (None,) * sequences), None),
            (*(self.block_lengths or (None,) * sequences), None),
            context=self.context,
        )

    @property
    def longest(self) -> int:
        """An exclusive upper bound on the positions."""
        return max((int(window[-1]) + 1 for window in self.all_windows() if len(window)), default=0)

    def all_windows(self) -> tuple[np.ndarray, ...]:
        """Return the positions of each window's tokens in their sequence."""
        return self.windows or tuple(np.arange(length) for length in self.lengths)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a packed batch at which the model's output is wanted.

    Attributes:
        index_R: row numbers, ascending.
        counts: how many of the rows lie in each sequence.
    """

    index_R: Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, packed: PackedTokens, rows: Sequence[np.ndarray]) -> "Rows":
        """Build from each window's own ascending row numbers."""
        offsets = np.cumsum((0, *packed.lengths[:-1]))
        index_R = np.concatenate([window + offset for window, offset in zip(rows, offsets, strict=True)])
        device = packed.tokens_T.device
        return cls(torch.from_numpy(index_R).to(device, non_blocking=True), tuple(len(window) for window in rows))

    @classmethod
    def every(cls, packed: PackedTokens) -> "Rows":
        """Return the rows of all positions."""
        return cls.of(packed, [np.arange(length) for length in packed.lengths])

    def one_before(self, packed: PackedTokens) -> "Rows":
        """Return the row before each one; the first row of a window stands for itself."""
        firsts = torch.from_numpy(np.cumsum((0, *packed.lengths[:-1]))).to(self.index_R.device, non_blocking=True)
        return Rows(self.index_R - (~torch.isin(self.index_R, firsts)).long(), self.counts)

    def padded(self, multiple: int) -> tuple["Rows", Tensor]:
        """Repeat the last row of each sequence until their number is a multiple of `multiple`.

        Returns:
            The padded rows, and the indices of the original ones among them: int64 [R].
        """
        counts = np.array(self.counts, dtype=np.int64)
        padded = counts + -counts % multiple
        firsts, padded_firsts = np.cumsum(counts) - counts, np.cumsum(padded) - padded
        repeated = [
            first + np.minimum(np.arange(size), count - 1)
            for first, size, count in zip(firsts, padded, counts, strict=True)
        ]
        kept = [first + np.arange(count) for first, count in zip(padded_firsts, counts, strict=True)]
        device = self.index_R.device
        index_R = self.index_R[torch.from_numpy(np.concatenate(repeated)).to(device)]
        return Rows(index_R, tuple(padded.tolist())), torch.from_numpy(np.concatenate(kept)).to(device)
