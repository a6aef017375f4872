"""Saves a film in the format that a file's suffix names."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import typer

from clients.terminal.playback import Speed
from clients.terminal.recording import Recording


@dataclass(frozen=True, slots=True)
class Film:
    """Finished runs, and how they are shown.

    Attributes:
        width: columns of the terminal.
    """

    recordings: Sequence[Recording]
    speed: Speed
    width: int


def _json(path: Path, film: Film) -> None:
    from clients.terminal.recording import write_json

    write_json(path, film.recordings)


def _cast(path: Path, film: Film) -> None:
    from clients.terminal.cast import write_cast

    write_cast(path, film.recordings, film.speed, film.width)


def _gif(path: Path, film: Film) -> None:
    from clients.terminal.gif import write_gif

    write_gif(path, film.recordings, film.speed)


def _html(path: Path, film: Film) -> None:
    from clients.terminal.html import write_html

    write_html(path, film.recordings)


WRITERS: Mapping[str, Callable[[Path, Film], None]] = {".json": _json, ".html": _html, ".cast": _cast, ".gif": _gif}


def check_targets(paths: Sequence[Path]) -> None:
    """Refuse files that could not be written, before anything is generated.

    Raises:
        typer.BadParameter: the suffix is unknown, the folder does not exist, or writing is not allowed.
    """
    for path in paths:
        if problem := _problem(path):
            raise typer.BadParameter(f"{path}: {problem}", param_hint="--save")


def save(paths: Sequence[Path], film: Film) -> None:
    """Write the film to each of the files."""
    for path in paths:
        WRITERS[path.suffix.lower()](path, film)


def _problem(path: Path) -> str | None:
    if path.suffix.lower() not in WRITERS:
        return f"the name must end in one of {', '.join(WRITERS)}"
    if path.is_dir():
        return "this is a folder"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        return "writing is not allowed there"
    if path.suffix.lower() == ".gif" and find_spec("PIL") is None:
        return "GIFs need Pillow: pip install 'llada[gif]'"
    return None
