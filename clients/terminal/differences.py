"""The words in which two answers differ."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import accumulate

from clients.terminal.cells import Cell

# Punctuation apart: "home" and "home." are the same word.
_WORD = re.compile(r"\w+|[^\w\s]+")


def differing(first: Sequence[Cell], second: Sequence[Cell]) -> tuple[set[int], set[int], int]:
    """For each canvas the positions of words that the other does not have there; and the larger number of words."""
    words = [_words(cells) for cells in (first, second)]
    matcher = SequenceMatcher(a=[text for text, _ in words[0]], b=[text for text, _ in words[1]], autojunk=False)
    marked: tuple[set[int], set[int]] = (set(), set())
    num_words = 0
    for op, first_from, first_to, second_from, second_to in matcher.get_opcodes():
        if op != "equal":
            marked[0].update(*(positions for _, positions in words[0][first_from:first_to]))
            marked[1].update(*(positions for _, positions in words[1][second_from:second_to]))
            num_words += max(first_to - first_from, second_to - second_from)
    return *marked, num_words


def _words(cells: Sequence[Cell]) -> list[tuple[str, set[int]]]:
    """Each word with the positions of the tokens that are part of it."""
    cells = [cell for cell in cells if cell.kind not in ("mask", "end")]
    ends = list(accumulate(len(cell.text) for cell in cells))
    words = []
    for match in _WORD.finditer("".join(cell.text for cell in cells)):
        spans = zip(cells, [0, *ends], ends, strict=False)
        inside = {cell.position for cell, start, end in spans if start < match.end() and end > match.start()}
        words.append((match[0], inside))
    return words
