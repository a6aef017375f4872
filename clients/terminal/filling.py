"""Reads the gaps in a text: `___` and `[[5]]`."""

import re

from clients.calls import Gap

_GAP = re.compile(r"\[\[(\d{1,6})\]\]|_{3,}")


class NoGapError(ValueError):
    """The text has no gap, or one of no tokens."""


def canvas_of(text: str, gap_length: int) -> list[str | Gap]:
    """The texts and gaps of a canvas; `___` is a gap of `gap_length` tokens.

    Tokens begin with the space before a word, so the space before a gap is the gap's to fill: it is taken away.

    Raises:
        NoGapError: there is nothing to fill.
    """
    canvas: list[str | Gap] = []
    position = 0
    for match in _GAP.finditer(text):
        before = text[position : match.start()].removesuffix(" ")
        length = gap_length if match[1] is None else int(match[1])
        if length < 1:
            raise NoGapError(f"{match[0]}: a gap has at least one token")
        canvas += [before, Gap(length)] if before else [Gap(length)]
        position = match.end()
    if not canvas:
        raise NoGapError('the text has no gap; write "___" or, for a gap of 5 tokens, "[[5]]"')
    return [*canvas, text[position:]] if text[position:] else canvas
