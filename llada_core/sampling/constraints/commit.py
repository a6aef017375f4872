"""The commit rule under a constraint: after every step there is a filling left.

If the tokens that the step would commit anyway leave one, they are committed. So a constraint never alters an answer
that satisfies it. Otherwise they are committed one by one, best first: a proposal that is not viable is drawn again
among the tokens that are, and ranked again.

Shape suffix: R proposals of a step.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.constraints.fillings import Fillings
from llada_core.sampling.proposals import Proposals
from llada_core.sampling.selection import CommitRule, rank, select

# (row, the ids to draw from) → the id drawn and its confidence
Redraw = Callable[[int, np.ndarray], tuple[int, float]]


@dataclass(frozen=True, slots=True, eq=False)
class ActiveBlock:
    """The masks of a constrained canvas's active block.

    Attributes:
        rows: the rows of the step's proposals that lie in the block.
        places_R: the position of every row, counted from the block's start.
    """

    constraint: Constraint
    fillings: Fillings
    rows: np.ndarray
    places_R: np.ndarray


def select_viable(
    block: ActiveBlock, proposals: Proposals, rule: CommitRule, redraw: Redraw, *, ranks_by_confidence: bool
) -> tuple[Proposals, np.ndarray]:
    """Return the proposals, those that were drawn again replaced, and the rows to commit, from left to right.

    Args:
        redraw: draws a row again among the given ids.
        ranks_by_confidence: a proposal's score is its confidence, so it changes with the token.
    """
    selected = select(block.rows, proposals, rule)
    trial = block.fillings.copy()
    for row in selected:
        trial.write(block.places_R[row], block.constraint.classes_V[proposals.token_ids_R[row]])
    if trial.is_possible:
        return proposals, selected
    draft = replace(
        proposals,
        token_ids_R=proposals.token_ids_R.copy(),
        confidence_R=proposals.confidence_R.copy(),
        scores_R=proposals.scores_R.copy(),
    )
    return draft, _select_one_by_one(block, draft, rule, redraw, ranks_by_confidence=ranks_by_confidence)


def _select_one_by_one(
    block: ActiveBlock, draft: Proposals, rule: CommitRule, redraw: Redraw, *, ranks_by_confidence: bool
) -> np.ndarray:
    """Return the rows to commit; proposals that are not viable are replaced in `draft`."""
    classes_V, fillings = block.constraint.classes_V, block.fillings
    selected: list[int] = []
    waiting = rank(block.rows, draft.scores_R).tolist()
    while (row := rule.next_row(selected, waiting, draft)) is not None:
        waiting.remove(row)
        place = int(block.places_R[row])
        token_class = int(classes_V[draft.token_ids_R[row]])
        if fillings.is_viable(place, token_class):
            fillings.write(place, token_class)
            selected.append(row)
            continue
        draft.token_ids_R[row], draft.confidence_R[row] = redraw(row, fillings.viable_ids(place))
        if ranks_by_confidence:
            draft.scores_R[row] = draft.confidence_R[row]
        insort(waiting, row, key=lambda row: (-draft.scores_R[row], row))
    return np.sort(np.array(selected, dtype=np.int64))
