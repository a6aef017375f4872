"""The commit rule under a constraint: after every step there is a filling left.

If the tokens that the step would commit anyway leave one, they are committed. So a constraint never alters an answer
that satisfies it. Otherwise they are committed one by one, best first: a proposal that is not viable is drawn again
among the tokens that are, and ranked again.

Shape suffix: R proposals of a step.
"""

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
    viable_ids: dict[bytes, np.ndarray] = {}
    selected: list[int] = []
    waiting = block.rows.tolist()
    while waiting:
        ranked = rank(waiting, draft.scores_R)
        considered = np.concatenate((np.array(selected, dtype=np.int64), ranked))
        is_kept = rule.keeps(draft.confidence_R[considered], draft.entropies_R[considered])[len(selected) :]
        if not is_kept.any():
            break
        row = int(ranked[is_kept.argmax()])
        place = int(block.places_R[row])
        token_class = int(classes_V[draft.token_ids_R[row]])
        if fillings.is_viable(place, token_class):
            fillings.write(place, token_class)
            selected.append(row)
            waiting.remove(row)
            continue
        viable_C = fillings.viable_classes(place)
        # Many masks allow the same classes.
        key = viable_C.tobytes()
        if key not in viable_ids:
            viable_ids[key] = np.flatnonzero(viable_C[classes_V])
        draft.token_ids_R[row], draft.confidence_R[row] = redraw(row, viable_ids[key])
        if ranks_by_confidence:
            draft.scores_R[row] = draft.confidence_R[row]
    return np.sort(np.array(selected, dtype=np.int64))
