"""Text as it becomes final, token by token from the left, up to the first stop string."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache

from llada_core.text.tokenizer import IncrementalDecoder, Tokenizer


class FinalText:
    """Decodes final tokens and holds back text that may turn out to begin a stop string.

    Attributes:
        text: the certain text so far; it only grows.
        stop_word: the stop string that ended the text; None while there is none.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.stop_word: str | None = None
        self._decoder = IncrementalDecoder(tokenizer)
        self._matchers = [_Matcher(word) for word in stop]
        self._decoded = ""
        # The end of each token in the decoded text; the last tokens may still wait for the rest of a character.
        self._ends: list[int] = []
        self._num_waiting = 0

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was completed: the text ends before it, and further tokens are ignored."""
        return self.stop_word is not None

    @property
    def num_tokens(self) -> int:
        """The number of tokens that lie wholly within the text."""
        return bisect_right(self._ends, len(self.text))

    def start_of(self, index: int) -> int:
        """Return the character at which the token `index` begins; it or the one before must lie within the text."""
        return self._ends[index - 1] if index else 0

    def num_tokens_in(self, start: int, stop: int) -> int:
        """Return the number of tokens that begin at one of the text's characters from `start` to before `stop`."""
        return self._num_begun_before(stop) - self._num_begun_before(start)

    def push(self, ids: Iterable[int]) -> str:
        """Take in the next tokens; return the text that they make certain."""
        before = len(self.text)
        for token_id in ids:
            if self.is_stopped:
                break
            self._num_waiting += 1
            self._extend(self._decoder.push([token_id]))
            if not self._decoder.is_waiting:
                self._place_waiting()
        return self.text[before:]

    def flush(self) -> str:
        """End the text: release what was held back; an incomplete character becomes U+FFFD."""
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
        start = len(self._decoded)
        self._decoded += piece
        self._place_waiting()
        for end, character in enumerate(piece, start + 1):
            completed = [matcher.word for matcher in self._matchers if matcher.push(character)]
            if completed:
                self.stop_word = max(completed, key=len)
                self.text = self._decoded[: end - len(self.stop_word)]
                return
        num_held = max((matcher.num_matched for matcher in self._matchers), default=0)
        self.text = self._decoded[: len(self._decoded) - num_held]

    def _num_begun_before(self, character: int) -> int:
        # A token begins where the one before it ends.
        return min(bisect_left(self._ends, character) + 1, len(self._ends)) if character else 0

    def _place_waiting(self) -> None:
        self._ends += [len(self._decoded)] * self._num_waiting
        self._num_waiting = 0


class _Matcher:
    """Looks for a word in text that arrives character by character, at a constant cost each (Knuth, Morris, Pratt).

    Attributes:
        num_matched: how many of the word's first characters the text ends with.
    """

    def __init__(self, word: str) -> None:
        self.word = word
        self.num_matched = 0
        self._shorter = _failure_function(word)

    def push(self, character: str) -> bool:
        """Take in the next character; return whether it completes the word."""
        self.num_matched = _longer(self.word, self._shorter, self.num_matched, character)
        return self.num_matched == len(self.word)


# The canvas, the stream and all choices of a request look for the same words.
@lru_cache(maxsize=64)
def _failure_function(word: str) -> Sequence[int]:
    """For each prefix of the word, the length of the longest shorter prefix that it ends with."""
    shorter = [0, 0]
    for character in word[1:]:
        shorter.append(_longer(word, shorter, shorter[-1], character))
    return shorter


def _longer(word: str, shorter: Sequence[int], num_matched: int, character: str) -> int:
    """How many of the word's first characters a text ends with, once one more character has come."""
    while word[num_matched] != character:
        if not num_matched:
            return 0
        num_matched = shorter[num_matched]
    return num_matched + 1
