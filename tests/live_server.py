"""A real `llada-server` process for tests and benchmarks, on a free port, for the duration of a block."""

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


class LiveServer:
    """Runs `llada-server` with these options while the block lasts.

    Attributes:
        url: its base URL.
    """

    url: str

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
        self._options = options
        self._threads = threads
        self._stderr = stderr

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "--port", "0", "--log-level", "warning", *self._options],
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ if self._threads is None else {**os.environ, "OMP_NUM_THREADS": str(self._threads)},
            cwd=Path(__file__).parent.parent,
        )
        assert self.process.stdout is not None
        watchdog = threading.Timer(self._start_seconds, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
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
        assert self.process.stdout is not None
        self.process.stdout.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
