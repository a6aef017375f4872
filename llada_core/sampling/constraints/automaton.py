"""A pattern as a deterministic automaton over bytes: tree → NFA (Thompson) → DFA (subset construction).

All work is bounded: by the number of states, by the entries of all state sets, and by the thread's CPU time.

Shape suffixes: Q states, B byte classes.
"""

import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from llada_core.sampling.constraints import syntax
from llada_core.sampling.constraints.anchors import matched_whole
from llada_core.sampling.constraints.characters import CharacterSet, Interval, byte_sequences
from llada_core.sampling.constraints.syntax import Characters, Choice, Node, PatternError, Repeat, refuse

MAX_STATES = 4096
MAX_UNMERGED_STATES = 16384
MAX_NFA_STATES = 65536
MAX_SET_ENTRIES = 1 << 20
MAX_CPU_SECONDS = 5.0

DEAD = -1


@dataclass(frozen=True, slots=True, eq=False)
class Automaton:
    """A DFA; state 0 is the start.

    Attributes:
        next_QB: int32; the state after a byte of the class, or `DEAD`.
        byte_classes: int64 [256]; bytes of one class move every state alike.
        is_accepting_Q: bool.
    """

    next_QB: np.ndarray
    byte_classes: np.ndarray
    is_accepting_Q: np.ndarray


class Deadline:
    """The CPU time that compiling one pattern may take. A thread cannot be stopped, so its loops ask."""

    def __init__(self) -> None:
        self._end = time.thread_time() + MAX_CPU_SECONDS

    def check(self) -> None:
        """Refuse the pattern if the time is over."""
        if time.thread_time() > self._end:
            refuse(f"takes more than {MAX_CPU_SECONDS:g} seconds of computing; it must be simpler")


def build_automaton(pattern: str, deadline: Deadline) -> Automaton:
    """Compile a pattern.

    Raises:
        InvalidParameterError: the pattern is not supported, or passes a limit.
    """
    try:
        tree = matched_whole(syntax.parse(pattern))
    except PatternError as error:
        refuse(str(error))
    nfa = _NFA(deadline)
    return _determinize(nfa, nfa.add(tree, nfa.accepting), deadline)


class _NFA:
    """States with byte edges and empty edges, built from the end of the pattern to its start.

    Attributes:
        accepting: the only accepting state.
        edges: for each state, byte interval and target.
    """

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._num_nodes = 0
        self._num_entries = 0
        self.edges: list[list[tuple[Interval, int]]] = []
        self._empty_edges: list[list[int]] = []
        self._closures: dict[int, frozenset[int]] = {}
        self.accepting = self._state()

    def add(self, node: Node, target: int) -> int:
        """Add a part that leads to `target`; return the state at its start."""
        # Parts that add no state take time too.
        self._num_nodes += 1
        if self._num_nodes > MAX_NFA_STATES:
            refuse(f"has more than {MAX_NFA_STATES} parts after its repeats are written out")
        match node:
            case Characters(characters):
                return self._add_characters(characters, target)
            case syntax.Sequence(parts):
                for part in reversed(parts):
                    target = self.add(part, target)
                return target
            case Choice(alternatives):
                return self._state(empty_edges=[self.add(alternative, target) for alternative in alternatives])
            case Repeat():
                return self._add_repeat(node, target)
            case syntax.Anchor():
                raise TypeError("anchors must be taken out of a tree first")

    def closure(self, state: int) -> frozenset[int]:
        """Return the states that empty edges lead to, only those with byte edges and the accepting one."""
        found = self._closures.get(state)
        if found is None:
            seen, waiting = {state}, [state]
            while waiting:
                for after in self._empty_edges[waiting.pop()]:
                    if after not in seen:
                        seen.add(after)
                        waiting.append(after)
            self.count_entries(len(seen))
            found = self._closures[state] = frozenset(s for s in seen if self.edges[s] or s == self.accepting)
        return found

    def count_entries(self, number: int) -> None:
        """Count entries of state sets, which take the memory."""
        self._deadline.check()
        self._num_entries += number
        if self._num_entries > MAX_SET_ENTRIES:
            refuse(f"needs sets with more than {MAX_SET_ENTRIES} states in all; it must be simpler")

    def _state(self, edges: Iterable[tuple[Interval, int]] = (), empty_edges: Iterable[int] = ()) -> int:
        self.edges.append(list(edges))
        self._empty_edges.append(list(empty_edges))
        if len(self.edges) > MAX_NFA_STATES:
            refuse(f"needs more than {MAX_NFA_STATES} states to begin with; it must be simpler")
        return len(self.edges) - 1

    def _add_repeat(self, node: Repeat, target: int) -> int:
        if node.most is None:
            loop = self._state(empty_edges=[target])
            self._empty_edges[loop].append(self.add(node.part, loop))
            start = loop
        else:
            start = target
            for _ in range(node.most - node.least):
                start = self._state(empty_edges=[target, self.add(node.part, start)])
        for _ in range(node.least):
            start = self.add(node.part, start)
        return start

    def _add_characters(self, characters: CharacterSet, target: int) -> int:
        """Add the characters' encodings; those that end alike share the states of their ends."""
        after: dict[tuple[Interval, ...], int] = {(): target}

        def state_before(rest: tuple[Interval, ...]) -> int:
            if rest not in after:
                after[rest] = self._state([(rest[0], state_before(rest[1:]))])
            return after[rest]

        return self._state([(sequence[0], state_before(sequence[1:])) for sequence in byte_sequences(characters)])


def _determinize(nfa: _NFA, start: int, deadline: Deadline) -> Automaton:
    bounds = sorted(
        {0} | {bound for edges in nfa.edges for (low, high), _ in edges for bound in (low, high + 1)} - {256}
    )
    # By NFA state: first and last byte class, target.
    edges = [
        [(bisect_right(bounds, low) - 1, bisect_right(bounds, high) - 1, target) for (low, high), target in state]
        for state in nfa.edges
    ]
    numbers = {nfa.closure(start): 0}
    waiting = list(numbers)
    rows: list[list[int]] = []
    for states in waiting:
        row = [DEAD] * len(bounds)
        for byte_class, targets in _moves(nfa, edges, states).items():
            if targets not in numbers:
                numbers[targets] = len(numbers)
                waiting.append(targets)
                if len(numbers) > MAX_UNMERGED_STATES:
                    refuse(f"needs more than {MAX_UNMERGED_STATES} states before they are merged; it must be simpler")
            row[byte_class] = numbers[targets]
        rows.append(row)
        deadline.check()
    next_QB = np.array(rows, dtype=np.int32)
    is_accepting_Q = np.array([nfa.accepting in states for states in waiting])
    class_of_byte = np.array([bisect_right(bounds, byte) - 1 for byte in range(256)])
    return _merged(Automaton(next_QB, class_of_byte, is_accepting_Q), deadline)


def _moves(
    nfa: _NFA, edges: Sequence[Sequence[tuple[int, int, int]]], states: frozenset[int]
) -> dict[int, frozenset[int]]:
    """Return the set of states after each byte class that leads anywhere."""
    targets: dict[int, set[int]] = {}
    for state in states:
        for first, last, target in edges[state]:
            for byte_class in range(first, last + 1):
                targets.setdefault(byte_class, set()).add(target)
    moves: dict[frozenset[int], frozenset[int]] = {}
    after: dict[int, frozenset[int]] = {}
    # Most classes lead to the same states.
    for byte_class, direct in targets.items():
        key = frozenset(direct)
        if key not in moves:
            moves[key] = frozenset().union(*(nfa.closure(target) for target in key))
            nfa.count_entries(len(moves[key]))
        if moves[key]:
            after[byte_class] = moves[key]
    return after


def _merged(automaton: Automaton, deadline: Deadline) -> Automaton:
    """Merge states from which the same texts are accepted, and byte classes that move every state alike."""
    groups_Q = _equivalent_states(automaton, deadline)
    _, firsts = np.unique(groups_Q, return_index=True)
    # The start stays the first state.
    if len(firsts) > MAX_STATES:
        refuse(f"needs an automaton of more than {MAX_STATES} states; it must be simpler")
    order = np.argsort(firsts)
    number_of_group = np.append(np.argsort(order), DEAD)
    kept = firsts[order]
    next_QB = number_of_group[np.append(groups_Q, DEAD)[automaton.next_QB[kept]]]
    columns_QB, classes = np.unique(next_QB, axis=1, return_inverse=True)
    return Automaton(
        np.ascontiguousarray(columns_QB, dtype=np.int32),
        classes.reshape(-1)[automaton.byte_classes],
        automaton.is_accepting_Q[kept],
    )


def _equivalent_states(automaton: Automaton, deadline: Deadline) -> np.ndarray:
    """Return a number for each state, the same for states from which the same texts are accepted (Moore, 1956)."""
    next_QB = automaton.next_QB
    # States are compared by hashes of where each byte leads. A collision may hide a difference, so the result is
    # checked, and not used if it is wrong.
    generator = np.random.default_rng(0)
    code_of_group = generator.integers(1 << 62, size=len(next_QB) + 1, dtype=np.uint64)
    factors_B = generator.integers(1 << 62, size=next_QB.shape[1], dtype=np.uint64)
    groups_Q = np.unique(automaton.is_accepting_Q, return_inverse=True)[1]
    num_groups = 0
    while groups_Q.max() + 1 > num_groups:
        deadline.check()
        num_groups = int(groups_Q.max()) + 1
        if num_groups > MAX_STATES:
            refuse(f"needs an automaton of more than {MAX_STATES} states; it must be simpler")
        after_QB = np.append(groups_Q, DEAD)[next_QB]
        hashes_Q = code_of_group[groups_Q] + (code_of_group[after_QB] * factors_B).sum(axis=1, dtype=np.uint64)
        groups_Q = np.unique(hashes_Q, return_inverse=True)[1]
    _, firsts = np.unique(groups_Q, return_index=True)
    after_QB = np.append(groups_Q, DEAD)[next_QB]
    is_right = (after_QB == after_QB[firsts[groups_Q]]).all() and (
        automaton.is_accepting_Q == automaton.is_accepting_Q[firsts[groups_Q]]
    ).all()
    return groups_Q if is_right else np.arange(len(next_QB))
