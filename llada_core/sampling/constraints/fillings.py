"""The fillings of a block: tokens for its masks, and for those right of it, with which the answer matches and fits.

Two sweeps of sets of states tell what they may be. From the left: the states that the tokens so far may lead to. From
the right: the states from which the rest can be filled. A token is viable at a mask if it leads from one of the first
into one of the second. While there is one filling, every mask has a viable token, and committing a viable token leaves
a filling: the one that the token is part of.

Shape suffixes: S states, A arcs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Literal
from weakref import ReferenceType, ref

import numpy as np

from llada_core.sampling.constraints.candidates import TokenSet
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

    @property
    def constraint(self) -> Constraint:
        return self._constraint

    @property
    def length(self) -> int:
        """The positions of the block."""
        return len(self._classes)

    def is_masked(self, position: int) -> bool:
        return self._classes[position] == MASKED

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

    def viable_tokens(self, position: int) -> TokenSet:
        """Return the tokens that may be written at this mask, at least one while there is a filling."""
        left, right = self._left(position).tobytes(), self._right(position + 1).tobytes()
        # The sets of many masks are equal, and stay so from step to step.
        reference = ref(self._constraint)
        return _tokens_of(reference, _classes_between(reference, left, right))

    def viable_arcs(self, position: int, state: int | None = None) -> np.ndarray:
        """Return the arcs that a filling may take at this position, in ascending order.

        Args:
            state: only those from this state.
        """
        left_S, right_S = self._left(position), self._right(position + 1)
        if state is not None:
            left_S = np.zeros_like(left_S)
            left_S[state] = True
        if self.is_masked(position):
            return _arcs_between(self._constraint, left_S, right_S)
        sources, targets = self._constraint.arcs(self._classes[position])
        first: int = self._constraint.class_starts[self._classes[position]]
        return first + np.flatnonzero(left_S[sources] & right_S[targets])

    def _left(self, boundary: int) -> np.ndarray:
        known = len(self._from_left)
        if known <= boundary:
            classes = self._classes[known - 1 : boundary]
            self._from_left.extend(sweep(after, self._constraint, self._from_left[-1], classes))
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


def _arcs_between(constraint: Constraint, left_S: np.ndarray, right_S: np.ndarray) -> np.ndarray:
    """Return the arcs that lead from one of the first states to one of the second, in ascending order."""
    arcs = np.flatnonzero(left_S[constraint.sources_A])
    between: np.ndarray = arcs[right_S[constraint.targets_A[arcs]]]
    return between


# The caches name a constraint by a weak reference: they must not keep one that nobody uses any more.
@lru_cache(maxsize=1024)
def _classes_between(reference: ReferenceType[Constraint], left: bytes, right: bytes) -> bytes:
    """Return the classes with which a state of the first set leads to one of the second; the sets are bool."""
    constraint = _alive(reference)
    arcs = _arcs_between(constraint, np.frombuffer(left, dtype=bool), np.frombuffer(right, dtype=bool))
    return np.unique(constraint.classes_of(arcs)).tobytes()


# An entry may take a megabyte and a half.
@lru_cache(maxsize=32)
def _tokens_of(reference: ReferenceType[Constraint], classes: bytes) -> TokenSet:
    constraint = _alive(reference)
    return TokenSet.of(constraint.ids(np.frombuffer(classes, dtype=np.int64)), len(constraint.classes_V))


@lru_cache(maxsize=1024)
def _neighbours(reference: ReferenceType[Constraint], side: Literal["after", "before"], states: bytes) -> bytes:
    """Return the states that any token leads to from one of these, or from which one leads to these; as bool."""
    constraint = _alive(reference)
    neighbours_SW = constraint.successors_SW if side == "after" else constraint.predecessors_SW
    words_W = np.bitwise_or.reduce(neighbours_SW[np.frombuffer(states, dtype=bool)], axis=0)
    return np.unpackbits(words_W.view(np.uint8), count=len(states), bitorder="little").tobytes()


def _alive(reference: ReferenceType[Constraint]) -> Constraint:
    constraint = reference()
    assert constraint is not None
    return constraint


def after(constraint: Constraint, states_S: np.ndarray, token_class: int) -> np.ndarray:
    """Return the states that a token of the class, or any token at a mask, leads to."""
    if token_class == MASKED:
        return np.frombuffer(_neighbours(ref(constraint), "after", states_S.tobytes()), dtype=bool)
    sources, targets = constraint.arcs(token_class)
    after_S = np.zeros_like(states_S)
    after_S[targets[states_S[sources]]] = True
    return after_S


def before(constraint: Constraint, states_S: np.ndarray, token_class: int) -> np.ndarray:
    """Return the states from which a token of the class, or any token at a mask, leads to one of these."""
    if token_class == MASKED:
        return np.frombuffer(_neighbours(ref(constraint), "before", states_S.tobytes()), dtype=bool)
    sources, targets = constraint.arcs(token_class)
    before_S = np.zeros_like(states_S)
    before_S[sources[states_S[targets]]] = True
    return before_S


def sweep(
    move: Callable[[Constraint, np.ndarray, int], np.ndarray],
    constraint: Constraint,
    states_S: np.ndarray,
    classes: Iterable[int],
) -> Iterator[np.ndarray]:
    """Move a set of states (`after` or `before`) through a row of tokens and masks; yield the set after each."""
    is_steady = False
    for token_class in classes:
        # In a long run of masks the set soon stays as it is.
        if token_class != MASKED or not is_steady:
            moved_S = move(constraint, states_S, token_class)
            is_steady = token_class == MASKED and np.array_equal(moved_S, states_S)
            states_S = moved_S
        yield states_S
