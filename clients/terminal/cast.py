"""Writes what the terminal shows as an asciinema recording, version 2: a header, then a line of JSON for each frame."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType

from clients.terminal.canvas_view import prompt_text, screen
from clients.terminal.playback import Speed, film
from clients.terminal.recording import Recording

_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_LAST_FRAME_SECONDS = 2.0


def write_cast(path: Path, recordings: Sequence[Recording], speed: Speed, width: int) -> None:
    """Write the film of finished runs."""
    frames = [(seconds, _drawn(screen(playback, width), width)) for seconds, playback in film(recordings, speed)]
    height = max(len(lines) for _, lines in frames) + 1
    header = {
        "version": 2,
        "width": width,
        "height": height,
        "title": f"llada: {prompt_text(recordings[0].request) or 'gaps'}"[:80],
        "env": {"TERM": "xterm-256color"},
    }
    events = [[round(seconds, 3), "o", _frame(lines)] for seconds, lines in frames]
    events.append([round(frames[-1][0] + _LAST_FRAME_SECONDS, 3), "o", "\r\n"])
    lines = (json.dumps(line, ensure_ascii=False) for line in [header, *events])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _drawn(picture: RenderableType, width: int) -> list[str]:
    # An environment of its own: NO_COLOR and TERM are about this terminal, not about the one that plays the file.
    console = Console(
        file=StringIO(), width=width, force_terminal=True, color_system="standard", legacy_windows=False, _environ={}
    )
    with console.capture() as capture:
        console.print(picture)
    return capture.get().rstrip("\n").split("\n")


def _frame(lines: Sequence[str]) -> str:
    return _HOME + "\r\n".join(line + _CLEAR_LINE for line in lines) + _CLEAR_BELOW
