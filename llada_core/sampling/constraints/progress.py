"""A canvas's progress through its constraint: the state at the start of its active block, and what must be met later.

Shape suffix: S states.
"""

from collections.abc import Sequence

import numpy as np

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.constraints.fillings import MASKED, Fillings, after, before


class Progress:
    """Follows the tokens of a response from the left. The tokens left of the active block are all there.

    Attributes:
        constraint: the constraint that the finished response satisfies.
    """

    def __init__(self, constraint: Constraint, response: np.ndarray, mask_id: int, stops: Sequence[int]) -> None:
        """Begin with a response that may hold tokens anywhere.

        Args:
            response: ids; masked positions hold the mask id.
            stops: where the blocks end.

        Raises:
            InvalidParameterError: the tokens admit no answer; names the first position at which this is certain.
        """
        self.constraint = constraint
        self._mask_id = mask_id
        self._state, self._position = 0, 0
        classes = self._classes(response)
        _require_filling(constraint, classes)
        self._goals = _goals(constraint, classes, stops)

    def advance(self, response: np.ndarray, position: int) -> None:
        """Take in the tokens up to the start of the active block."""
        for token_class in self._classes(response[self._position : position]):
            sources, targets = self.constraint.arcs(token_class)
            self._state = int(targets[np.searchsorted(sources, self._state)])
        self._position = position

    def fillings(self, response: np.ndarray, stop: int) -> Fillings:
        """Return the fillings of the active block, which ends at `stop`."""
        return Fillings(
            self.constraint,
            self._classes(response[self._position : stop]),
            self._state,
            room=len(response) - stop,
            goals_S=self._goals.get(stop),
        )

    def _classes(self, ids: np.ndarray) -> list[int]:
        classes: list[int] = np.where(ids == self._mask_id, MASKED, self.constraint.classes_V[ids]).tolist()
        return classes


def _require_filling(constraint: Constraint, classes: Sequence[int]) -> None:
    states_S = np.zeros(constraint.num_states, dtype=bool)
    states_S[0] = True
    for position, token_class in enumerate(classes[: _end_of_tokens(classes)]):
        states_S = after(constraint, states_S, token_class)
        room = len(classes) - position - 1
        if not (states_S & (constraint.distances_S <= room)).any():
            raise InvalidParameterError(
                f"pinned: with the token at position {position} no answer of {len(classes)} tokens can match", "pinned"
            )


def _goals(constraint: Constraint, classes: Sequence[int], stops: Sequence[int]) -> dict[int, np.ndarray]:
    """For each block with tokens to its right: the states at its end from which they can be met and completed."""
    end = _end_of_tokens(classes)
    needed = {stop for stop in stops if stop < end}
    goals = {}
    states_S = constraint.distances_S <= len(classes) - end
    for position in range(end - 1, min(needed, default=end) - 1, -1):
        states_S = before(constraint, states_S, classes[position])
        if position in needed:
            goals[position] = states_S
    return goals


def _end_of_tokens(classes: Sequence[int]) -> int:
    """The boundary that only masks follow."""
    return max((position + 1 for position, token_class in enumerate(classes) if token_class != MASKED), default=0)
