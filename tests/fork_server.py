"""The process that `tests/forked.py` starts: it imports once what commands need, and forks itself for each of them.

    python -m tests.fork_server MODULE:FUNCTION DESCRIPTOR

The function imports; the socket of that number brings a message for each command, until its other end is closed.
"""

import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """A command line, and what else a process gets from whoever starts it."""

    entry_point: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


def main() -> int:
    importer, descriptor = sys.argv[1:]
    # An interrupt at the terminal is for the tests; when they end, their end of the socket is closed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _load(importer)()
    # The collector would write into every object, and so copy all the memory that forks share.
    gc.freeze()
    num_threads = len(list(Path("/proc/self/task").iterdir()))
    assert num_threads == 1, f"{importer} has started threads, which a fork would not have"
    command = _next_command(socket.socket(fileno=int(descriptor)))
    return 0 if command is None else _run(command)


def _load(name: str) -> Callable[[], int | None]:
    """The function of an entry point, as `pyproject.toml` names them."""
    module, _, function = name.partition(":")
    loaded: Callable[[], int | None] = getattr(importlib.import_module(module), function)
    return loaded


def _next_command(control: socket.socket) -> Command | None:
    """Wait for commands. Returns each in a process of its own, and None in this one when there will be no more."""
    while True:
        _, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not descriptors:
            return None
        if os.fork() == 0:
            control.close()
            channel, *files = descriptors
            return _watched(Connection(channel), files)
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _watched(channel: Connection, files: list[int]) -> Command:
    """Fork once more: the new process gets the files and returns the command; this one tells of its number and end."""
    command: Command = channel.recv()
    if (pid := os.fork()) == 0:
        channel.close()
        for number, descriptor in enumerate(files):
            os.dup2(descriptor, number)
            os.close(descriptor)
        return command
    for descriptor in files:
        os.close(descriptor)
    try:
        channel.send(pid)
        channel.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    finally:
        os._exit(0)


def _run(command: Command) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Whoever runs the tests under `nohup` hands an ignored SIGHUP down, and that stays ignored.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(command.environment)
    sys.argv = [command.entry_point, *command.arguments]
    return _load(command.entry_point)() or 0


if __name__ == "__main__":
    sys.exit(main())
