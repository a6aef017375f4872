"""Which proposals of a step are committed: the best-ranked, as many as the schedule or a parallel rule says, or each
with a probability.

Shape suffixes: R proposals of a step, N ranked ones of the active blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.proposals import Proposals


@dataclass(frozen=True, slots=True)
class CommitRule:
    """How many of the ranked proposals are committed.

    Attributes:
        num_transfers: this many or, under a parallel rule, at least this many; None if something else decides.
        parallel_rule: its name and value.
        chance: each with this probability; their scores are independent and uniform between 0 and 1.
        is_first_block_R: which of the step's proposals lie in the first active block.
        held_back: the rows of each block that the step may not fill up.
    """

    num_transfers: int | None
    parallel_rule: tuple[str, float] | None
    is_first_block_R: np.ndarray
    chance: float | None = None
    held_back: tuple[np.ndarray, ...] = ()

    def candidates(self, rows: np.ndarray, scores_R: np.ndarray) -> np.ndarray:
        """Return those of the rows that may be committed: of a block that is held back, all but the worst."""
        worst = [rank(block, scores_R)[-1:] for block in self.held_back]
        return np.setdiff1d(rows, np.concatenate(worst)) if worst else rows

    def keeps(self, ranked_N: np.ndarray, proposals: Proposals) -> np.ndarray:
        """Return which rows are committed, bool [N]; under a parallel rule, the best of the first active block are.

        Args:
            ranked_N: the rows, best first.
        """
        if self.parallel_rule is None and self.num_transfers is not None:
            return np.arange(len(ranked_N)) < self.num_transfers
        if self.chance is not None:
            is_chosen_N: np.ndarray = proposals.scores_R[ranked_N] > 1 - self.chance
            return is_chosen_N
        assert self.parallel_rule is not None
        name, value = self.parallel_rule
        confidence_N, entropies_N = proposals.confidence_R[ranked_N], proposals.entropies_R[ranked_N]
        is_kept_N = PARALLEL_RULES[name].choose(confidence_N, entropies_N, value)
        is_kept_N[self.is_first_block_R[ranked_N].nonzero()[0][: self.num_transfers]] = True
        return is_kept_N

    def next_row(self, selected: Sequence[int], waiting: Sequence[int], proposals: Proposals) -> int | None:
        """Return the row that is committed next; None if no other is.

        Args:
            selected: the rows committed before it, in order.
            waiting: the other rows, best first.
        """
        if self.parallel_rule is None and self.num_transfers is not None:
            return waiting[0] if waiting and len(selected) < self.num_transfers else None
        ranked_N = np.array([*selected, *waiting], dtype=np.int64)
        is_kept_N = self.keeps(ranked_N, proposals)[len(selected) :]
        return waiting[int(is_kept_N.argmax())] if is_kept_N.any() else None


def rank(rows: np.ndarray, scores_R: np.ndarray) -> np.ndarray:
    """Order rows, which come from left to right, by score, highest first; on a tie, the leftmost."""
    ranked: np.ndarray = rows[np.argsort(-scores_R[rows], kind="stable")]
    return ranked


def select(rows: np.ndarray, proposals: Proposals, rule: CommitRule) -> np.ndarray:
    """Return which of the active blocks' rows are committed, from left to right."""
    ranked_N = rank(rule.candidates(rows, proposals.scores_R), proposals.scores_R)
    return np.sort(ranked_N[rule.keeps(ranked_N, proposals)])
