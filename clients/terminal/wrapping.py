"""Breaks the cells of a canvas into lines by the width that they take on a screen."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, split_graphemes

from clients.terminal.cells import Cell

NEWLINE = "↵"
# Line ends, words with the spaces before them, and spaces at the end.
_PART = re.compile(r"\n| *[^ \n]+| +")


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a cell's text on one line."""

    text: str
    cell: Cell


@dataclass(slots=True)
class _Word:
    """Pieces that stay together on a line."""

    pieces: list[Piece] = field(default_factory=list)
    ends_line: bool = False

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def wrap(cells: Sequence[Cell], width: int) -> list[list[Piece]]:
    """The lines; none is wider than `width`, unless a single character is."""
    lines: list[list[Piece]] = [[]]
    used, is_indented = 0, False
    for word in _words(cells):
        length = cell_len(word.text)
        if used and used + length > width:
            lines.append([])
            used = 0
        pieces = word.pieces if used or is_indented else _without_spaces(word.pieces)
        is_indented = False
        for part in _chopped(pieces, width, used):
            if part is None:
                lines.append([])
                used = 0
                continue
            lines[-1].append(part)
            used += cell_len(part.text)
        if word.ends_line:
            lines.append([])
            used, is_indented = 0, True  # the spaces after a line end are the text's own
    return lines if lines[-1] else lines[:-1] or [[]]


def _words(cells: Sequence[Cell]) -> Iterator[_Word]:
    word = _Word()
    for piece in _pieces(cells):
        if piece.text == NEWLINE:
            word.pieces.append(piece)
            word.ends_line = True
        if word.pieces and (word.ends_line or _may_break(word.text, piece)):
            yield word
            word = _Word()
        if piece.text != NEWLINE:
            word.pieces.append(piece)
    if word.pieces:
        yield word


def _pieces(cells: Sequence[Cell]) -> Iterator[Piece]:
    for cell in cells:
        for match in _PART.finditer(cell.text):
            if match[0] == "\n":
                yield Piece(NEWLINE, cell)
            else:
                yield from (Piece(text, cell) for text in _ideographs_apart(match[0]))


def _ideographs_apart(text: str) -> Iterator[str]:
    """The text as it is, or in characters if it has wide ones: a line may end between any two of those."""
    if cell_len(text) == len(text):
        yield text
    else:
        yield from _graphemes(text)


def _may_break(before: str, piece: Piece) -> bool:
    return piece.text.startswith(" ") or piece.cell.kind in ("mask", "end") or _is_wide(piece.text) or _is_wide(before)


def _is_wide(text: str) -> bool:
    return cell_len(text[-1:]) > 1 or cell_len(text[:1]) > 1


def _without_spaces(pieces: list[Piece]) -> list[Piece]:
    """The pieces without spaces before the first letter: a line does not begin with the space between two words."""
    for i, piece in enumerate(pieces):
        if text := piece.text.lstrip(" "):
            return [Piece(text, piece.cell), *pieces[i + 1 :]]
    return []


def _chopped(pieces: Sequence[Piece], width: int, used: int) -> Iterator[Piece | None]:
    """The pieces of a word, cut where a line is full; None where a line ends."""
    for piece in pieces:
        if used + cell_len(piece.text) <= width:
            yield piece
            used += cell_len(piece.text)
            continue
        part = ""
        for character in _graphemes(piece.text):
            if used and used + cell_len(character) > width:
                if part:
                    yield Piece(part, piece.cell)
                yield None
                part, used = "", 0
            part += character
            used += cell_len(character)
        if part:
            yield Piece(part, piece.cell)


def _graphemes(text: str) -> list[str]:
    spans, _ = split_graphemes(text)
    return [text[start:end] for start, end, _ in spans]
