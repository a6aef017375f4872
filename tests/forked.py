"""Commands in processes that are forked from one which has imported what they need.

A new interpreter spends two to five seconds of processor time on imports, more than most commands in tests take. A fork
is a process of its own in all that tests look at: its number, its files, its signals, its end. Where the tests measure
time or memory, or what is imported when, they start a new interpreter.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO

from tests.fork_server import Command

ROOT = Path(__file__).parent.parent
# For a command that should end by itself.
_SECONDS = 60


class ForkedProcess:
    """A command under way; the methods are those of `subprocess.Popen`.

    Attributes:
        returncode: the exit status, or minus the signal that ended the process; None until that is asked for.
    """

    def __init__(self, channel: Connection, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid: int = channel.recv()
        self.returncode: int | None = None
        self._channel = channel
        self._files = (stdout, stderr)

    def poll(self) -> int | None:
        if self.returncode is None and self._channel.poll():
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._channel.poll(timeout):
                assert timeout is not None
                raise subprocess.TimeoutExpired("a forked process", timeout)
            self.returncode = self._channel.recv()
            self._channel.close()
            for file in self._files:
                file.seek(0)
            self._written = [file.read() for file in self._files]
            for file in self._files:
                file.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; returns what was written to standard output and error, unless other files were given."""
        self.wait(timeout)
        stdout, stderr = self._written
        return stdout, stderr

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Starts commands; its process is started with the first one, and ends with this one."""

    def __init__(self, importer: str, **environment: str) -> None:
        """
        Args:
            importer: a function, as `module:name`, that imports what the commands need and starts no thread.
            environment: variables that the imported modules read, besides those of this process.
        """
        self._importer = importer
        self._environment = environment
        self._control: socket.socket | None = None

    def start(
        self,
        entry_point: str,
        *arguments: str,
        stdin: str = "",
        stdout: int | None = None,
        stderr: int | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> ForkedProcess:
        """Start a command.

        Args:
            entry_point: its function, as `module:name`.
            arguments: those of the command line, after the name of the command.
            stdin: the text that it reads.
            stdout: a descriptor to write to; None for a file that `communicate` reads.
            stderr: the same for errors.
            environment: variables that it gets besides those of this process.
        """
        if self._control is None:
            self._control = self._started()
        channel, far_end = Pipe()
        written, complained = (TemporaryFile("w+") for _ in range(2))  # noqa: SIM115 (closed when the process has ended)
        files = [written.fileno() if stdout is None else stdout, complained.fileno() if stderr is None else stderr]
        with TemporaryFile("w+") as given:
            given.write(stdin)
            given.seek(0)
            socket.send_fds(self._control, [b"\0"], [far_end.fileno(), given.fileno(), *files])
        far_end.close()
        channel.send(Command(entry_point, arguments, {**os.environ, **self._environment, **environment}))
        return ForkedProcess(channel, written, complained)

    def run(
        self, entry_point: str, *arguments: str, stdin: str = "", environment: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with the arguments of `start`."""
        process = self.start(entry_point, *arguments, stdin=stdin, environment=environment)
        stdout, stderr = process.communicate(_SECONDS)
        return subprocess.CompletedProcess(arguments, process.wait(), stdout, stderr)

    def _started(self) -> socket.socket:
        control, far_end = socket.socketpair()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", self._importer, str(far_end.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[far_end.fileno()],
            env={**os.environ, **self._environment},
            cwd=ROOT,
        )
        far_end.close()

        def end() -> None:
            control.close()
            process.wait()

        atexit.register(end)
        return control
