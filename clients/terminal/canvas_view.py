"""Draws canvases for a terminal: the text with its masks, a status line, a legend."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from clients.terminal.cells import ACTIVE_MASK, LOW, MASK, MEDIUM, Cell, cells_of, plain
from clients.terminal.differences import differing
from clients.terminal.figures import figures, progress, true_seconds
from clients.terminal.playback import Playback, Shown
from clients.terminal.wrapping import Piece, wrap

SIDE_BY_SIDE_FROM = 120
_GUTTER, _ACTIVE_GUTTER = "  ", "▌ "
_PROMPT_LINES = 2
_MOST_OF_PROMPT = 1000
# Stands for bytes that make a character only together with the next token's; the text as a whole has it.
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LEAST_CANVAS_LINES = 3

_SETTLED: Mapping[str, str] = {
    "mask": "bright_black",
    "given": "dim",
    "low": "red",
    "mid": "yellow",
    "high": "default",
    "end": "bright_black",
}
_FRESH: Mapping[str, str] = {
    **_SETTLED,
    "low": "bold black on red",
    "mid": "bold black on yellow",
    "high": "bold black on green",
}


def screen(playback: Playback, width: int, height: int | None = None) -> RenderableType:
    """What a terminal shows; with a height, no more lines than that while the runs go on."""
    is_wide = len(playback.shown) > 1 and width >= SIDE_BY_SIDE_FROM
    column = (width - 3) // 2 if is_wide else width
    room = _room(len(playback.shown), is_wide, None if playback.is_over else height)
    marks, note = _marks(playback)
    runs = [_run(shown, column, room, marked) for shown, marked in zip(playback.shown, marks, strict=True)]
    prompt = _prompt(playback.shown[0].recording.request, width)
    footer = _footer(playback, note, width)
    if is_wide:
        return Group(*prompt, _side_by_side(runs, column), *footer)
    lines = [line for number, run in enumerate(runs) for line in ([Text()] if number else []) + run]
    return Group(*prompt, *lines, *footer)


def style_of(cell: Cell, is_marked: bool = False) -> str:
    """The style of a cell: settled tokens are calmer than fresh ones."""
    style = _FRESH[cell.kind] if cell.is_fresh else _SETTLED[cell.kind]
    if cell.kind == "mask" and cell.is_active:
        style = "cyan"
    return f"{style} bold underline" if is_marked else style


def prompt_text(request: Mapping[str, Any]) -> str:
    """The prompt of a request for display; empty if the canvas shows everything."""
    prompt, messages = request.get("prompt"), request.get("messages")
    if isinstance(prompt, list):
        return f"{len(prompt)} token ids"
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        prompt = messages[-1].get("content")
    if not isinstance(prompt, str):
        return ""
    # Only its first lines are drawn, but in every frame: a long document is cut before it is wrapped.
    return plain(prompt if len(prompt) <= _MOST_OF_PROMPT else f"{prompt[:_MOST_OF_PROMPT]}…")


def note_of(playback: Playback) -> str:
    """Says that the film took longer or shorter than the run, if it did; empty otherwise."""
    true = max(true_seconds(shown.recording.replay) for shown in playback.shown)
    if playback.speed is None or (true / 1.2 <= playback.seconds <= true * 1.2):
        return ""
    return f"The times are the server's; the film took {playback.seconds:.1f} s."


def _room(num_runs: int, is_wide: bool, height: int | None) -> int | None:
    """The lines for each canvas."""
    if height is None:
        return None
    rows = 1 if is_wide else num_runs
    around = _PROMPT_LINES + 1 + rows * (2 if num_runs > 1 else 1) + (rows - 1) + 2
    return max((height - around) // rows, _LEAST_CANVAS_LINES)


def _prompt(request: Mapping[str, Any], width: int) -> list[Text]:
    text = prompt_text(request)
    if not text:
        return []
    lines = wrap([Cell(0, text, "given")], width - 2)
    rows = [Text("".join(piece.text for piece in line), style="dim") for line in lines[:_PROMPT_LINES]]
    if len(lines) > _PROMPT_LINES:
        rows[-1].truncate(width - 3)
        rows[-1].append("…")
    return [Text("  " if number else "› ", style="dim").append_text(row) for number, row in enumerate(rows)]


def _run(shown: Shown, width: int, room: int | None, marked: set[int]) -> list[Text]:
    """One run: its name, its canvas, its status."""
    name = [Text(plain(shown.recording.name), style="bold", overflow="ellipsis", no_wrap=True)]
    if shown.replay.start is None:
        return [*(name if shown.recording.name else []), Text("waiting for the server", style="dim")]
    cells = cells_of(shown)
    lines = [_line(line, marked) for line in _window(wrap(cells, width - len(_GUTTER)), room)]
    if shown.replay.done is not None and any(_BROKEN in cell.text for cell in cells):
        lines += _wrapped(f"= {plain(shown.replay.done.text)}", width, "default")
    status = figures(shown.replay) if shown.is_over else progress(shown.replay)
    rows = _wrapped(status, width, "bold" if shown.is_over else "dim")
    return [*(name if shown.recording.name else []), *lines, *rows]


def _line(line: Sequence[Piece], marked: set[int]) -> Text:
    is_active = any(piece.cell.is_active for piece in line)
    text = Text(no_wrap=True, overflow="crop")
    text.append(_ACTIVE_GUTTER if is_active else _GUTTER, style="cyan")
    for piece in line:
        style = style_of(piece.cell, piece.cell.position in marked)
        spaces = len(piece.text) - len(piece.text.lstrip(" "))
        text.append(piece.text[:spaces])
        text.append(piece.text[spaces:], style=style)
    return text


def _window(lines: list[list[Piece]], room: int | None) -> list[list[Piece]]:
    """The lines around the active block if there is no room for all."""
    if room is None or len(lines) <= room:
        return lines
    active = [number for number, line in enumerate(lines) if any(piece.cell.is_active for piece in line)]
    first = active[0] if active else len(lines)
    begin = min(max(first - room // 3, 0), len(lines) - room)
    return lines[begin : begin + room]


def _marks(playback: Playback) -> tuple[list[set[int]], str]:
    """The positions to mark in each run, and a sentence about them, once two runs are over."""
    if len(playback.shown) != 2 or not playback.is_over:
        return [set() for _ in playback.shown], ""
    first, second, num_words = differing(*(cells_of(shown) for shown in playback.shown))
    words = "1 word differs" if num_words == 1 else f"{num_words} words differ"
    return [first, second], f"{words}, underlined." if num_words else "Both answers are the same."


def _footer(playback: Playback, note: str, width: int) -> list[Text]:
    if not playback.is_over:
        return _legend()
    text = " ".join(part for part in (note, note_of(playback)) if part)
    return _wrapped(text, width, "dim") if text else []


def _legend() -> list[Text]:
    legend = Text(no_wrap=True, overflow="ellipsis")
    legend.append(ACTIVE_MASK.strip(), style="cyan").append(" active block  ")
    legend.append(MASK.strip(), style=_SETTLED["mask"]).append(" masked  confidence ")
    for kind, label in (("low", f"<{LOW}"), ("mid", f"<{MEDIUM}"), ("high", f"≥{MEDIUM}")):
        legend.append(f" {label} ", style=_FRESH[kind])
    return [Text(), legend]


def _side_by_side(runs: Sequence[Sequence[Text]], column: int) -> Table:
    table = Table.grid(padding=(0, 3, 0, 0))
    for _ in runs:
        table.add_column(width=column, no_wrap=True)
    table.add_row(*(Group(*run) for run in runs))
    return table


def _wrapped(text: str, width: int, style: str) -> list[Text]:
    cells = [Cell(0, text, "given")]
    return [Text("".join(piece.text for piece in line), style=style) for line in wrap(cells, width)]
