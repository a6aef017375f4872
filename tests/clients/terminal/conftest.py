"""`llada` as a process of its own, in pipes or in a real terminal."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.terminal.tmux import Terminal

ROOT = Path(__file__).parents[3]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def llada(live_server: str) -> Run:
    """Run `llada` with pipes in place of a terminal."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "clients.terminal.cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT,
            env={**os.environ, "LLADA_SERVER": live_server, **environment},
        )

    return run


@pytest.fixture
def terminal() -> type[Terminal]:
    """A real terminal; without tmux its tests are skipped or, in CI, fail."""
    if shutil.which("tmux") is None:
        reason = "the tests in a terminal need tmux, which is not on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return Terminal
