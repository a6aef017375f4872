"""A real `llada-server` process for tests and benchmarks, on a free port, for the duration of a block."""

import importlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.forked import ForkedProcess, ForkServer


class LiveServer:
    """Runs `llada-server` in a new interpreter, with these options, while the block lasts.

    Attributes:
        url: its base URL.
        process: its process.
    """

    url: str
    process: "subprocess.Popen[str] | ForkedProcess"

    def __init__(
        self, *options: str, threads: int | None = 1, stderr: IO[str] | None = None, start_seconds: float = 60
    ) -> None:
        """
        Args:
            threads: the threads that torch may use within one operation; None leaves that to the server.
            stderr: the file that gets the server's log; None for that of this process.
            start_seconds: how long loading may take.
        """
        self._start_seconds = start_seconds
        self._options = ["--port", "0", "--log-level", "warning", *options]
        self._threads = threads
        self._log = 2 if stderr is None else stderr.fileno()

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        self.process = self._start(writing)
        os.close(writing)
        watchdog = threading.Timer(self._start_seconds, self.process.kill)
        watchdog.start()
        self._stdout = os.fdopen(reading)
        line = self._stdout.readline()
        watchdog.cancel()
        match = re.fullmatch(r"Serving \S+ on (http://\S+)\n", line)
        assert match, f"the server did not start: {line!r}"
        self.url = match[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stdout.close()

    def _start(self, stdout: int) -> "subprocess.Popen[str] | ForkedProcess":
        return subprocess.Popen(
            [sys.executable, "-m", "server.cli", *self._options],
            stdout=stdout,
            stderr=self._log,
            text=True,
            env=os.environ if self._threads is None else {**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            cwd=Path(__file__).parent.parent,
        )


def import_server() -> None:
    """Import what `llada-server` imports, under the settings that it makes before."""
    from llada_core.threads import spin_briefly
    from server.cli import bound_kernel_caches

    spin_briefly()
    bound_kernel_caches()

    for module in ("llada_core.checkpoint.load", "llada_core.checkpoint.placement", "server.app", "server.loading"):
        importlib.import_module(module)


# One thread: tests share the processors.
LLADA_SERVER = ForkServer("tests.live_server:import_server", OMP_NUM_THREADS="1")


class ForkedServer(LiveServer):
    """Runs `llada-server` in a fork of a process that has imported it, for a tenth of the processor time."""

    entry_point = "server.cli:main"

    def _start(self, stdout: int) -> ForkedProcess:
        return LLADA_SERVER.start(self.entry_point, *self._options, stdout=stdout, stderr=self._log)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
