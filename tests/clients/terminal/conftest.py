"""`llada` as a process of its own, with files for its streams or in a real terminal."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.terminal.forked import LLADA
from tests.clients.terminal.tmux import Terminal

ROOT = Path(__file__).parents[3]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def llada(live_server: str) -> Run:
    """Run `llada` with files in place of a terminal."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        return LLADA.run(
            "clients.terminal.cli:main",
            *arguments,
            stdin=stdin,
            environment={"LLADA_SERVER": live_server} | environment,
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
