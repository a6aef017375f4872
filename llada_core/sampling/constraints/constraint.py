"""A constraint: a pattern compiled for one vocabulary.

The text of an answer must match the pattern. Here the answer is a word over token classes, closed by the end of the
text: EOS and EoT lead from every accepting state to the state `end`, and from there only to itself. So a short answer
is padded with EOS, and nothing can follow its end.

Shape suffixes: V token ids, S states (`end` is the last), A arcs, C token classes, W words of 64 states.
"""

from dataclasses import dataclass

import numpy as np

from llada_core.sampling.constraints.automaton import Deadline, build_automaton
from llada_core.sampling.constraints.syntax import refuse
from llada_core.sampling.constraints.tokens import Move, concatenated, token_classes
from llada_core.text.byte_trie import ByteTrie
from llada_core.text.special_tokens import SpecialTokens

MAX_ARCS = 200_000

_UNREACHABLE = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Constraint:
    """What the texts of a pattern are in tokens. It never changes, so canvases and threads may share it.

    Attributes:
        classes_V: int32; the class of each token. Tokens of a class move every state alike.
        sources_A, targets_A: int64; the arcs, ordered by class and source.
        class_starts: where the arcs of a class begin, [C + 1].
        ids_V: int32; the tokens ordered by class.
        id_starts: where the tokens of a class begin, [C + 1].
        distances_S: int32; the fewest tokens from a state to an accepting one.
        successors_SW, predecessors_SW: uint64; the states one token after and before a state, as bits.
    """

    classes_V: np.ndarray
    sources_A: np.ndarray
    targets_A: np.ndarray
    class_starts: np.ndarray
    ids_V: np.ndarray
    id_starts: np.ndarray
    distances_S: np.ndarray
    successors_SW: np.ndarray
    predecessors_SW: np.ndarray

    @property
    def shortest(self) -> int:
        """The fewest tokens of an answer; its end takes none."""
        return int(self.distances_S[0])

    @property
    def num_states(self) -> int:
        return len(self.distances_S)

    @property
    def num_classes(self) -> int:
        return len(self.class_starts) - 1

    def arcs(self, token_class: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the sources and targets of a class's arcs."""
        arcs = slice(self.class_starts[token_class], self.class_starts[token_class + 1])
        return self.sources_A[arcs], self.targets_A[arcs]

    def classes_of(self, arcs: np.ndarray) -> np.ndarray:
        """Return the classes of arcs."""
        classes: np.ndarray = np.searchsorted(self.class_starts, arcs, side="right") - 1
        return classes

    def ids(self, classes: np.ndarray) -> np.ndarray:
        """Return the tokens of these classes, ordered by class."""
        starts, stops = self.id_starts[classes].tolist(), self.id_starts[classes + 1].tolist()
        ids: np.ndarray = np.concatenate([self.ids_V[a:b] for a, b in zip(starts, stops, strict=True)])
        return ids


def compile_pattern(pattern: str, trie: ByteTrie, special_tokens: SpecialTokens, vocab_size: int) -> Constraint:
    """Compile a pattern for the tokens of `trie` whose ids are below `vocab_size`.

    Raises:
        InvalidParameterError: the pattern is not supported, is too large, or no text of these tokens matches it.
    """
    deadline = Deadline()
    automaton = build_automaton(pattern, deadline)
    end_ids = sorted(special_tokens.end_ids)
    classes_V, moves = token_classes(automaton, trie, vocab_size, [special_tokens.mask_id, *end_ids], deadline)
    end = len(automaton.next_QB)
    accepting = np.flatnonzero(automaton.is_accepting_Q)
    classes_V[end_ids] = len(moves)
    moves.append(Move(np.append(accepting, end), np.full(len(accepting) + 1, end)))
    sources_A, targets_A, starts = concatenated(moves)
    if len(sources_A) > MAX_ARCS:
        refuse(f"needs {len(sources_A)} moves of token classes; it must need at most {MAX_ARCS}")
    distances_S = _distances(sources_A, targets_A, accepting, end)
    if distances_S[0] == _UNREACHABLE:
        refuse("matches no text that this model can write")
    is_live_A = distances_S[targets_A] < _UNREACHABLE
    successors_SS = np.zeros((end + 1, end + 1), dtype=bool)
    successors_SS[sources_A[is_live_A], targets_A[is_live_A]] = True
    return Constraint(
        classes_V,
        sources_A[is_live_A].astype(np.int64),
        targets_A[is_live_A].astype(np.int64),
        np.append(0, np.cumsum(is_live_A))[starts],
        np.argsort(classes_V, kind="stable").astype(np.int32),
        np.append(0, np.cumsum(np.bincount(classes_V, minlength=len(moves)))),
        distances_S,
        packed(successors_SS),
        packed(successors_SS.T),
    )


def packed(sets_XS: np.ndarray) -> np.ndarray:
    """Write sets of states, bool, as bits: uint64 [X, W]."""
    bits = np.packbits(sets_XS, axis=1, bitorder="little")
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    words: np.ndarray = np.ascontiguousarray(padded).view(np.uint64)
    return words


def _distances(sources_A: np.ndarray, targets_A: np.ndarray, accepting: np.ndarray, end: int) -> np.ndarray:
    """Return the fewest tokens from each state to an accepting one, by breadth-first search backwards."""
    distances_S = np.full(end + 1, _UNREACHABLE, dtype=np.int32)
    distances_S[[*accepting, end]] = 0
    distance = 0
    while (distances_S == distance).any():
        before = sources_A[distances_S[targets_A] == distance]
        distance += 1
        distances_S[before[distances_S[before] == _UNREACHABLE]] = distance
    return distances_S
