"""Thinking: text between `<think>` and `</think>` with which some models begin an answer, before what they say.

Only the beginning of an answer counts: a tag that comes later, or within the thinking, is text like any other.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

OPENING, CLOSING = "<think>", "</think>"

Beginning = Literal["free", "open", "closed"]
"""How an answer begins: perhaps with thinking, within thinking that the prompt has opened, or behind it."""


class Divided(NamedTuple):
    """A piece of text: what of it is thinking, and what is said after that."""

    thinking: str
    said: str


@dataclass(frozen=True, slots=True)
class ThinkingForm:
    """Where thinking may be in an answer.

    Attributes:
        interruption: text that ends thinking without the closing tag and belongs to what is said, such as the opening
            of a call; empty if there is none.
        written: the text of the answer that the prompt already holds, which may end anywhere, even within a tag. The
            answer as it is read continues it.
    """

    beginning: Beginning = "free"
    interruption: str = ""
    written: str = ""


class ThinkingReader:
    """Divides the text of one answer while it grows. A piece that was given out never changes.

    Attributes:
        thinking: the thinking so far, without its tags; None while there is none.
        start: the character of the whole text at which the thinking begins.
    """

    def __init__(self, form: ThinkingForm) -> None:
        self.thinking: str | None = "" if form.beginning == "open" else None
        self.start = 0
        self._form = form
        self._held = ""
        # How many of the characters held are in the prompt.
        self._num_written = 0
        self._place: Literal["before", "within", "behind"] = "behind" if form.beginning == "closed" else "before"
        if form.written:
            self._continue(form.written)

    def push(self, text: str, *, is_last: bool = False) -> Divided:
        """Take in the next text; return what it makes certain. Text that may begin a tag is held back.

        Args:
            is_last: no more text comes, so nothing is held back.
        """
        self._held += text
        if self._place == "before":
            self._begin(is_last)
        thinking = self._take_thinking(is_last) if self._place == "within" else ""
        return Divided(thinking, self._take(len(self._held)) if self._place == "behind" else "")

    def divide(self, draft: str) -> Divided:
        """Divide a whole draft of the answer, which does not count as read."""
        return ThinkingReader(self._form).push(draft, is_last=True)

    def _continue(self, written: str) -> None:
        """Begin where a text ends, none of which is given out."""
        self.push(written)
        self.thinking = None if self._place == "behind" or self.thinking is None else ""
        self.start, self._num_written = 0, len(self._held)

    def _begin(self, is_last: bool) -> None:
        """Find out whether the answer begins with thinking, after white space."""
        begun = self._held.lstrip()
        if begun.startswith(OPENING):
            self.start = len(self._take(len(self._held) - len(begun) + len(OPENING)))
            self.thinking, self._place = "", "within"
        elif is_last or not OPENING.startswith(begun):
            self._place = "behind" if self.thinking is None else "within"

    def _take_thinking(self, is_last: bool) -> str:
        """Take the thinking out of the text that is held, and the closing tag behind it."""
        ends = [end for end in (CLOSING, self._form.interruption) if end]
        places = {end: place for end in ends if (place := self._held.find(end)) >= 0}
        if places:
            end = min(places, key=places.__getitem__)
            thinking = self._take(places[end])
            self._take(len(CLOSING) if end == CLOSING else 0)
            self._place = "behind"
        else:
            num_held = 0 if is_last else max(_num_begun(self._held, end) for end in ends)
            thinking = self._take(len(self._held) - num_held)
        assert self.thinking is not None
        self.thinking += thinking
        return thinking

    def _take(self, length: int) -> str:
        """Let go of held characters; return those that are not in the prompt."""
        num_written = min(self._num_written, length)
        self._num_written -= num_written
        taken, self._held = self._held[num_written:length], self._held[length:]
        return taken


def divided(text: str) -> Divided:
    """Divide a whole answer that may begin with thinking, as chat templates do: without the line breaks in between."""
    reader = ThinkingReader(ThinkingForm())
    thinking, said = reader.push(text, is_last=True)
    return Divided(thinking.strip("\n"), said if reader.thinking is None else said.lstrip("\n"))


def _num_begun(text: str, word: str) -> int:
    """How many of the word's first characters the text ends with, short of all."""
    return next(number for number in range(len(word) - 1, -1, -1) if text.endswith(word[:number]))
