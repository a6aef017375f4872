"""The commit rule under a constraint: after every step there is a filling left.

If the tokens that the step would commit anyway leave one, they are committed. So a constraint never alters an answer
that satisfies it. Otherwise, at temperature 0, they are committed one by one, best first: a proposal that is not viable
is replaced by the most probable token that is, and ranked again. Above 0 a filling of the whole block is drawn, and the
step commits tokens of that.

Shape suffix: R proposals of a step.
"""

from bisect import insort
from dataclasses import dataclass, replace

import numpy as np
import torch

from llada_core.counter_noise import Purpose, uniform
from llada_core.sampling.constraints.candidates import Candidates
from llada_core.sampling.constraints.conditional import draw_filling
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.constraints.fillings import Fillings
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.proposals import Proposals
from llada_core.sampling.scores import SCORES
from llada_core.sampling.selection import CommitRule, rank, select


@dataclass(frozen=True, slots=True, eq=False)
class ActiveBlock:
    """The masks of a constrained canvas's active blocks.

    Attributes:
        step: the number of the step.
        start: the first block's first position in the response.
        rows: the rows of the step's proposals that lie in the blocks.
        positions_R: the response position of every row.
    """

    params: GenerationParams
    step: int
    fillings: Fillings
    start: int
    rows: np.ndarray
    positions_R: np.ndarray

    @property
    def constraint(self) -> Constraint:
        return self.fillings.constraint


def select_viable(
    block: ActiveBlock, proposals: Proposals, rule: CommitRule, candidates: Candidates
) -> tuple[Proposals, np.ndarray]:
    """Return the proposals, those that had to give way replaced, and the rows to commit, from left to right."""
    selected = select(block.rows, proposals, rule)
    trial = block.fillings.copy()
    for row in selected:
        trial.write(block.positions_R[row] - block.start, block.constraint.classes_V[proposals.token_ids_R[row]])
    if trial.is_possible:
        return proposals, selected
    draft = _Draft(block, proposals, candidates)
    if block.params.temperature == 0:
        return draft.proposals, _select_one_by_one(block, draft, rule, candidates)
    # Numbers of their own: those of the first draw are known to have failed.
    positions_N1 = torch.from_numpy(block.positions_R[block.rows]).unsqueeze(1)
    draws_N2 = uniform(block.params.seed, Purpose.FILLING, block.step, positions_N1, torch.arange(2)).numpy()
    drawn = draw_filling(block.fillings, candidates, block.rows.tolist(), block.params.temperature, draws_N2)
    for row, token_id in zip(block.rows, drawn, strict=True):
        draft.replace(row, token_id)
    return draft.proposals, select(block.rows, draft.proposals, rule)


class _Draft:
    """Proposals whose tokens can be replaced."""

    def __init__(self, block: ActiveBlock, proposals: Proposals, candidates: Candidates) -> None:
        self.proposals = replace(
            proposals,
            token_ids_R=proposals.token_ids_R.copy(),
            confidence_R=proposals.confidence_R.copy(),
            scores_R=proposals.scores_R.copy(),
        )
        self._candidates = candidates
        self._ranks_by_confidence = SCORES[block.params.remasking].is_confidence

    def replace(self, row: int, token_id: int) -> None:
        """Propose another token; a score made of its confidence changes with it."""
        self.proposals.token_ids_R[row] = token_id
        confidence = self._candidates.confidence(row, token_id)
        if self._ranks_by_confidence:
            # What else the score holds stays: the noise of a remasking temperature.
            self.proposals.scores_R[row] += confidence - self.proposals.confidence_R[row]
        self.proposals.confidence_R[row] = confidence


def _select_one_by_one(block: ActiveBlock, draft: _Draft, rule: CommitRule, candidates: Candidates) -> np.ndarray:
    """Return the rows to commit; proposals that are not viable are replaced in `draft`."""
    classes_V, fillings, proposals = block.constraint.classes_V, block.fillings, draft.proposals
    selected: list[int] = []
    waiting = rank(rule.candidates(block.rows, proposals.scores_R), proposals.scores_R).tolist()
    while (row := rule.next_row(selected, waiting, proposals)) is not None:
        waiting.remove(row)
        place = int(block.positions_R[row]) - block.start
        token_class = int(classes_V[proposals.token_ids_R[row]])
        if fillings.is_viable(place, token_class):
            fillings.write(place, token_class)
            selected.append(row)
            continue
        draft.replace(row, candidates.best(row, fillings.viable_tokens(place)))
        insort(waiting, row, key=lambda row: (-proposals.scores_R[row], row))
    return np.sort(np.array(selected, dtype=np.int64))
