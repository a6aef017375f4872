"""What a constraint needs to know about the tokens that a step could have proposed instead.

Shape suffixes: V token ids, M those of a set.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class TokenSet:
    """Some tokens of a vocabulary.

    Attributes:
        ids_M: int64.
        bias_V: float32; 0 for these tokens, −inf for all others. None for a set of less than half of the vocabulary:
            there, picking out the few is faster.
    """

    ids_M: np.ndarray
    bias_V: np.ndarray | None

    @classmethod
    def of(cls, ids_M: np.ndarray, vocab_size: int) -> "TokenSet":
        """Build a set of tokens."""
        bias_V = None
        if 2 * len(ids_M) > vocab_size:
            bias_V = np.full(vocab_size, -np.inf, dtype=np.float32)
            bias_V[ids_M] = 0
        return cls(ids_M.astype(np.int64), bias_V)

    def best(self, logits_V: np.ndarray) -> int:
        """Return the token of the largest logit."""
        if self.bias_V is not None:
            return int((logits_V + self.bias_V).argmax())
        return int(self.ids_M[logits_V.take(self.ids_M).argmax()])


class Candidates(Protocol):
    """The logits of a step's rows, as many as there are proposals."""

    def best(self, row: int, tokens: TokenSet) -> int:
        """Return the most probable of these tokens; one that `min_tokens` rules out only where it rules out all."""

    def confidence(self, row: int, token_id: int) -> float:
        """Return a token's softmax probability."""

    def logits(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of all tokens, float32 [V], and the same with those at −inf that top-k, top-p or
        `min_tokens` rule out.
        """
