"""Processes of `llada-train` that are forked from one which has imported everything.

A new interpreter spends five seconds of processor time on imports, more than most runs in tests take. A fork is a
process of its own in all that tests look at: its number, its signals, its end.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory


def fork(target: Callable[..., None], *arguments: object) -> BaseProcess:
    """Start a function in a process that has imported what a training needs, and that ends with this one."""
    process = _context().Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def run_command_line(arguments: list[str]) -> int:
    """Run a command line of `llada-train` in this process; returns its exit status."""
    from training.cli import main

    sys.argv = ["llada-train", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class ForkedRun:
    """One command line in a process of its own; the methods are those of `subprocess.Popen`."""

    def __init__(self, arguments: list[str]) -> None:
        self._folder = TemporaryDirectory()
        self._process = fork(_run_written, arguments, self._folder.name)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended the process; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; returns what was written to standard output and error."""
        self._process.join(timeout)
        if self.returncode is None:
            assert timeout is not None
            raise TimeoutExpired("llada-train", timeout)
        written = [Path(self._folder.name, name).read_text() for name in ("stdout", "stderr")]
        self._folder.cleanup()
        return written[0], written[1]


def _run_written(arguments: list[str], folder: str) -> None:
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT), descriptor)
    # Whoever runs the tests under `nohup` hands an ignored SIGHUP down, and that stays ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run_command_line(arguments))


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.cli", "training.run.run", "torch._dynamo", "matplotlib.figure"])
    return context
