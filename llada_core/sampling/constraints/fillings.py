"""The fillings of a block: tokens for its masks, and for those right of it, with which the answer matches and fits.

Two sweeps of sets of states tell what they may be. From the left: the states that the tokens so far may lead to. From
the right: the states from which the rest can be filled. A token is viable at a mask if it leads from one of the first
into one of the second. While there is one filling, every mask has a viable token, and committing a viable token leaves
a filling: the one that the token is part of.

Shape suffixes: S states, A arcs.
"""

from collections.abc import Sequence

import numpy as np

from llada_core.sampling.constraints.constraint import Constraint

MASKED = -1


class Fillings:
    """The fillings of one block as it stands. Sets are computed where they are asked for, and kept.

    Positions count from the block's start.
    """

    def __init__(
        self,
        constraint: Constraint,
        classes: Sequence[int],
        state: int,
        *,
        room: int,
        goals_S: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            classes: the class of each token of the block; `MASKED` for masks.
            state: the state at the block's start.
            room: positions right of the block.
            goals_S: the states at the block's end from which the rest can be completed; None if all of it is masked.
        """
        self._constraint = constraint
        self._classes = list(classes)
        self._room = room
        self._goals_S = goals_S
        # The boundary that only masks of the block follow.
        self._end_of_tokens = max((i + 1 for i, token_class in enumerate(classes) if token_class != MASKED), default=0)
        start_S = np.zeros(constraint.num_states, dtype=bool)
        start_S[state] = True
        # At each boundary between two positions, those from the left up to the last one known.
        self._from_left = [start_S]
        self._from_right: dict[int, np.ndarray] = {}

    def copy(self) -> "Fillings":
        """Return fillings that can be written without changing these."""
        other = Fillings.__new__(Fillings)
        other._constraint, other._room, other._goals_S = self._constraint, self._room, self._goals_S
        other._classes, other._end_of_tokens = self._classes.copy(), self._end_of_tokens
        other._from_left, other._from_right = self._from_left.copy(), self._from_right.copy()
        return other

    def write(self, position: int, token_class: int) -> None:
        """Put a token at a mask."""
        self._classes[position] = token_class
        self._end_of_tokens = max(self._end_of_tokens, position + 1)
        del self._from_left[position + 1 :]
        self._from_right = {boundary: states for boundary, states in self._from_right.items() if boundary > position}

    @property
    def is_possible(self) -> bool:
        """Whether there is a filling."""
        boundary = len(self._classes) if self._goals_S is not None else self._end_of_tokens
        return bool((self._left(boundary) & self._right(boundary)).any())

    def is_viable(self, position: int, token_class: int) -> bool:
        """Whether a token of this class may be written at this mask."""
        sources, targets = self._constraint.arcs(token_class)
        return bool((self._left(position)[sources] & self._right(position + 1)[targets]).any())

    def viable_ids(self, position: int) -> np.ndarray:
        """Return the tokens that may be written at this mask, at least one while there is a filling; by class."""
        constraint = self._constraint
        arcs = np.flatnonzero(self._left(position)[constraint.sources_A])
        arcs = arcs[self._right(position + 1)[constraint.targets_A[arcs]]]
        return constraint.ids(np.unique(np.searchsorted(constraint.class_starts, arcs, side="right") - 1))

    def _left(self, boundary: int) -> np.ndarray:
        while len(self._from_left) <= boundary:
            states_S = self._from_left[-1]
            self._from_left.append(after(self._constraint, states_S, self._classes[len(self._from_left) - 1]))
        return self._from_left[boundary]

    def _right(self, boundary: int) -> np.ndarray:
        known = boundary
        while known not in self._from_right and not self._is_goal(known):
            known += 1
        for place in range(known, boundary - 1, -1):
            if place not in self._from_right:
                self._from_right[place] = (
                    self._goal(place)
                    if self._is_goal(place)
                    else before(self._constraint, self._from_right[place + 1], self._classes[place])
                )
        return self._from_right[boundary]

    def _is_goal(self, boundary: int) -> bool:
        """Whether the states from which the rest can be completed are known without a sweep."""
        return boundary >= (len(self._classes) if self._goals_S is not None else self._end_of_tokens)

    def _goal(self, boundary: int) -> np.ndarray:
        if self._goals_S is not None:
            return self._goals_S
        # Only masks follow, and the end of the text fills what an answer leaves of them.
        goal_S: np.ndarray = self._constraint.distances_S <= self._room + len(self._classes) - boundary
        return goal_S


def after(constraint: Constraint, states_S: np.ndarray, token_class: int) -> np.ndarray:
    """Return the states that a token of the class, or any token at a mask, leads to."""
    if token_class == MASKED:
        return _neighbours(constraint.successors_SW, states_S)
    sources, targets = constraint.arcs(token_class)
    after_S = np.zeros_like(states_S)
    after_S[targets[states_S[sources]]] = True
    return after_S


def before(constraint: Constraint, states_S: np.ndarray, token_class: int) -> np.ndarray:
    """Return the states from which a token of the class, or any token at a mask, leads to one of these."""
    if token_class == MASKED:
        return _neighbours(constraint.predecessors_SW, states_S)
    sources, targets = constraint.arcs(token_class)
    before_S = np.zeros_like(states_S)
    before_S[sources[states_S[targets]]] = True
    return before_S


def _neighbours(neighbours_SW: np.ndarray, states_S: np.ndarray) -> np.ndarray:
    words_W = np.bitwise_or.reduce(neighbours_SW[states_S], axis=0)
    bits = np.unpackbits(words_W.view(np.uint8), count=len(states_S), bitorder="little")
    return bits.view(bool)
