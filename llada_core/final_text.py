"""Text as it becomes final, token by token from the left, up to the stop string that is complete first."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from llada_core.tokenizer import Tokenizer


class FinalText:
    """Decodes final tokens and holds back what may yet turn out to begin a stop string.

    Attributes:
        text: what is certain so far; it never changes but for growing.
        is_stopped: a stop string was found; the text ends before it, and further tokens are ignored.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.is_stopped = False
        self._decoder = tokenizer.incremental_decoder()
        self._stop = stop
        self._decoded = ""
        # Where in the decoded text each token ends; the last tokens may still wait for the rest of a character.
        self._ends: list[int] = []
        self._num_waiting = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that lie wholly within the text."""
        return bisect_right(self._ends, len(self.text))

    def start_of(self, index: int) -> int:
        """Where in the text the token `index` begins; it or the one before must be within the text."""
        return self._ends[index - 1] if index else 0

    def push(self, ids: Iterable[int]) -> str:
        """Take in the next tokens; returns the text that they make certain."""
        before = len(self.text)
        for token_id in ids:
            if self.is_stopped:
                break
            self._num_waiting += 1
            self._extend(self._decoder.push([token_id]))
        return self.text[before:]

    def flush(self) -> str:
        """There are no more tokens: what was held back is certain, half a character becomes U+FFFD."""
        before = len(self.text)
        if not self.is_stopped:
            self._extend(self._decoder.flush())
        if not self.is_stopped:
            self.text = self._decoded
            self._place_waiting()
        return self.text[before:]

    def _extend(self, piece: str) -> None:
        if not piece:
            return
        self._decoded += piece
        self._place_waiting()
        if first := min(self._found_in_last(len(piece)), default=None):
            self.is_stopped = True
            self.text = self._decoded[: first[1]]
        else:
            self.text = self._decoded[: len(self._decoded) - self._num_held()]

    def _found_in_last(self, length: int) -> Iterator[tuple[int, int]]:
        """Where the stop strings that end in the last `length` characters end and begin."""
        for stop in self._stop:
            place = self._decoded.find(stop, max(0, len(self._decoded) - length - len(stop) + 1))
            if place >= 0:
                yield place + len(stop), place

    def _place_waiting(self) -> None:
        self._ends += [len(self._decoded)] * self._num_waiting
        self._num_waiting = 0

    def _num_held(self) -> int:
        """The length of the longest end of the text with which a stop string begins."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._decoded)), 0, -1):
            if any(stop.startswith(self._decoded[-length:]) for stop in self._stop):
                return length
        return 0
