"""From bytes to tokens: which states of an automaton each token of a vocabulary leads to which others.

Most tokens of a vocabulary act alike: two tokens are of one class if they move every state alike. The classes are found
along the vocabulary's trie. Each node is a function from states to states, its parent's followed by one byte; there are
few different ones, and each is computed once for all nodes.

Shape suffixes: V token ids, N nodes of a level of the trie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llada_core.sampling.constraints.automaton import DEAD, Automaton, Deadline
from llada_core.sampling.constraints.syntax import refuse
from llada_core.text.byte_trie import ByteTrie

# The moves of all functions, those of unfinished tokens included.
MAX_MOVES = 1 << 21

# The function of tokens that no state can take.
NOTHING = 0


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """What a token class does: for each state that can take it, the state that follows; both int32."""

    sources: np.ndarray
    targets: np.ndarray


def token_classes(
    automaton: Automaton, trie: ByteTrie, vocab_size: int, special_ids: Sequence[int], deadline: Deadline
) -> tuple[np.ndarray, list[Move]]:
    """Return the class of each token, int32 [V], and the move of each class; class `NOTHING` has none.

    Every other class has at least one token.

    Args:
        special_ids: tokens that are no text, however the vocabulary spells them.

    Raises:
        InvalidParameterError: the pattern needs more moves, or more time, than the limits allow.
    """
    functions = _Functions(automaton, deadline)
    functions_V = np.full(max(vocab_size, trie.num_tokens), NOTHING)
    functions_N = np.array([functions.identity])
    for level in trie.levels:
        functions_N = functions.after_bytes(functions_N[level.parents_N], automaton.byte_classes[level.bytes_N])
        functions_V[level.token_ids_M] = functions_N[level.token_nodes_M]
    functions_V[special_ids] = NOTHING
    # `NOTHING` stays the first, whether or not a token has it.
    used, classes_V = np.unique(np.append(functions_V[:vocab_size], NOTHING), return_inverse=True)
    return classes_V[:-1].astype(np.int32), [functions.moves[function] for function in used]


class _Functions:
    """The functions found so far, each once.

    Attributes:
        identity: what the empty text does.
        moves: what each function does.
    """

    def __init__(self, automaton: Automaton, deadline: Deadline) -> None:
        self._automaton = automaton
        self._deadline = deadline
        self._numbers: dict[bytes, int] = {}
        self._num_moves = 0
        self.moves: list[Move] = []
        self._after: dict[int, int] = {}
        states = np.arange(len(automaton.next_QB), dtype=np.int32)
        self._number(states[:0], states[:0])
        self.identity = self._number(states, states)

    def after_bytes(self, functions_N: np.ndarray, byte_classes_N: np.ndarray) -> np.ndarray:
        """Return the number of each function followed by a byte of the class."""
        num_byte_classes = self._automaton.next_QB.shape[1]
        keys_N = functions_N * num_byte_classes + byte_classes_N
        table = np.full(len(self.moves) * num_byte_classes, NOTHING)
        is_needed = np.zeros(len(table), dtype=bool)
        is_needed[keys_N] = True
        is_needed[:num_byte_classes] = False
        for key in np.flatnonzero(is_needed).tolist():
            if key not in self._after:
                self._after[key] = self._compose(*divmod(key, num_byte_classes))
            table[key] = self._after[key]
        after_N: np.ndarray = table[keys_N]
        return after_N

    def _compose(self, function: int, byte_class: int) -> int:
        self._deadline.check()
        move = self.moves[function]
        targets = self._automaton.next_QB[move.targets, byte_class]
        is_live = targets != DEAD
        return self._number(move.sources[is_live], targets[is_live])

    def _number(self, sources: np.ndarray, targets: np.ndarray) -> int:
        """Return the function's number, a new one if it was not there."""
        number = self._numbers.setdefault(sources.tobytes() + targets.tobytes(), len(self.moves))
        if number == len(self.moves):
            self.moves.append(Move(sources, targets))
            self._num_moves += len(sources)
            if self._num_moves > MAX_MOVES:
                refuse(f"needs more than {MAX_MOVES} moves for this vocabulary; it must be simpler")
        return number


def concatenated(moves: Sequence[Move]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sources and targets of all classes, one after another, and where each class begins."""
    starts = np.cumsum([0, *(len(move.sources) for move in moves)])
    sources = np.concatenate([move.sources for move in moves])
    targets = np.concatenate([move.targets for move in moves])
    return sources, targets, starts
