"""Text on its way to standard output."""

import shutil
import sys

from rich.console import Console

from clients.terminal.cells import plain


def printable(text: str) -> str:
    """The text: on a terminal without characters that would control it, elsewhere as it is."""
    return plain(text) if sys.stdout.isatty() else text


def console() -> Console:
    """Standard output for drawings."""
    drawn = Console()
    if drawn.is_dumb_terminal:
        # Rich takes those for 80 columns wide, whatever they are.
        return Console(width=shutil.get_terminal_size().columns)
    return drawn
