"""Text as it becomes final, token by token from the left, up to the first stop string."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

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
        """Tokens of the text; of one that a stop string cuts short those that lie wholly before it."""
        return bisect_right(self._ends, len(self.text)) if self.is_stopped else len(self._ends) + self._num_waiting

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
        return self.text[before:]

    def _extend(self, piece: str) -> None:
        if not piece:
            return
        self._decoded += piece
        self._ends += [len(self._decoded)] * self._num_waiting
        self._num_waiting = 0
        # A stop string that ends before the piece would have been found before.
        places = (
            self._decoded.find(stop, max(0, len(self._decoded) - len(piece) - len(stop) + 1)) for stop in self._stop
        )
        first = min((place for place in places if place >= 0), default=None)
        self.is_stopped = first is not None
        self.text = self._decoded[: len(self._decoded) - self._num_held() if first is None else first]

    def _num_held(self) -> int:
        """The length of the longest end of the text with which a stop string begins."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(self._decoded)), 0, -1):
            if any(stop.startswith(self._decoded[-length:]) for stop in self._stop):
                return length
        return 0
