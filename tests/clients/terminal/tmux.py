"""A command in a real terminal: tmux draws it, and says what it looks like."""

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS = 15
SELECTION = re.compile(r"\x1b\[[\d;:]*m|[\x0e\x0f]")
ROOT = Path(__file__).parents[3]


class Terminal:
    """Runs `llada` in a terminal of so many columns and rows while the block lasts."""

    def __init__(self, *arguments: str, columns: int = 60, rows: int = 30, **environment: str) -> None:
        self._socket = f"llada-{uuid.uuid4().hex[:12]}"
        self._size = ["-x", str(columns), "-y", str(rows)]
        self._command = shlex.join([sys.executable, "-m", "clients.terminal.cli", *arguments])
        # A size in the environment would take precedence over the terminal's.
        others = ("NO_COLOR", "TMUX", "COLUMNS", "LINES")
        inherited = {name: value for name, value in os.environ.items() if name not in others}
        self._environment = {**inherited, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        self._settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())

    def __enter__(self) -> Self:
        shell = f"env {self._settings} {self._command}; echo EXIT=$?; sleep 60"
        self._tmux("-u", "-f", "/dev/null", "new-session", "-d", *self._size, shell)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def press(self, *keys: str) -> None:
        """Type keys by tmux's names for them, or texts."""
        self._tmux("send-keys", *keys)

    def wait_for(self, pattern: str) -> str:
        """The screen without colours, once it matches.

        A long frame reaches the terminal in several reads, so a capture may hold its first lines only: a pattern
        must reach to the last line that the test looks at.
        """
        return without_codes(self.wait_for_codes(pattern))

    def wait_for_codes(self, pattern: str) -> str:
        """The screen with the codes of its colours, once it matches without them."""
        deadline = time.monotonic() + SECONDS
        while not re.search(pattern, without_codes(codes := self._codes()), re.MULTILINE):
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{without_codes(codes)}"
            time.sleep(0.05)
        return codes

    def wait_for_exit(self) -> tuple[str, int]:
        """The screen at the end, and the exit code."""
        text, _, code = self.wait_for(r"^EXIT=\d+$").rpartition("EXIT=")
        return text, int(code)

    def _codes(self) -> str:
        return self._tmux("capture-pane", "-p", "-e").replace("\N{NO-BREAK SPACE}", " ")

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self._socket, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout


def without_codes(screen: str) -> str:
    """A screen's text alone: what stands between the codes that select its colours."""
    return SELECTION.sub("", screen)


def lines_of(text: str) -> Sequence[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]
