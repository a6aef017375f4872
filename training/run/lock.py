"""One run at a time in an output folder: a second one would delete what the first is writing."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from training.errors import TrainingError

LOCK_FILE = ".lock"


class OutputLock:
    """A lock on a folder, held by this process until it is released or the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / LOCK_FILE
        self._held: TextIO | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            TrainingError: another process holds it; names the process.
        """
        while True:
            held = self._file.open("a+")
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.seek(0)
                holder = held.read().strip()
                held.close()
                raise TrainingError(f"{self._file.parent}: another run is working in this folder ({holder})") from None
            # Who released the lock in this moment has deleted the file.
            if _is_same(held, self._file):
                break
            held.close()
        held.truncate(0)
        held.write(f"process {os.getpid()} on {socket.gethostname()}")
        held.flush()
        self._held = held

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._held is not None:
            self._file.unlink(missing_ok=True)
            self._held.close()
            self._held = None


def _is_same(held: TextIO, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held.fileno()), file.stat())
    except FileNotFoundError:
        return False
