"""Two processes, as torchrun starts them, that run one command line of `llada-train` after the other.

What a run imports or sets up once takes longer than most runs in tests, so all tests of a worker share a pair. Tests of
processes that end, or of which one fails, use torchrun itself.
"""

import json
import os
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.live_server import free_port
from tests.training.forked import LLADA_TRAIN

SECONDS = 110


class TwoProcesses:
    """Runs command lines in a pair of processes, which lives as long as the block.

    Args:
        folder: for the messages between this process and the pair; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._num_runs = 0

    def __enter__(self) -> Self:
        work = "tests.training.two_processes:work"
        self._pair = [LLADA_TRAIN.start(work, str(self._folder), str(rank), str(os.getpid())) for rank in range(2)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _write(self._folder / "end", None)
        for process in self._pair:
            process.wait(SECONDS)

    def run(self, *arguments: object) -> None:
        """Run a command line on both; it must succeed."""
        outcomes = self.attempt(*arguments)
        assert [status for status, _ in outcomes] == [0, 0], outcomes[0][1]

    def attempt(self, *arguments: object) -> list[tuple[int, str]]:
        """Run a command line on both; returns the exit status and the errors of each."""
        run, self._num_runs = self._num_runs, self._num_runs + 1
        # A port of its own: the processes meet through names that the run before has left in its store.
        _write(self._folder / f"run-{run}", [str(free_port()), *map(str, arguments)])
        results = [self._folder / f"run-{run}-{rank}" for rank in range(2)]
        deadline = time.monotonic() + SECONDS
        while not all(result.exists() for result in results):
            assert all(process.poll() is None for process in self._pair), "a process of the pair has ended"
            if time.monotonic() > deadline:
                for process in self._pair:
                    process.kill()
                raise AssertionError(f"{arguments} takes more than {SECONDS} seconds")
            time.sleep(0.02)
        return [tuple(json.loads(result.read_text())) for result in results]


def work() -> None:
    """Run what is written into the folder until it says that this is all, or the parent is gone."""
    folder, rank, parent = Path(sys.argv[1]), *sys.argv[2:]
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}
    os.environ["MASTER_ADDR"] = "localhost"
    number = 0
    while not (folder / "end").exists() and Path(f"/proc/{parent}").exists():
        if (message := folder / f"run-{number}").exists():
            os.environ["MASTER_PORT"], *arguments = json.loads(message.read_text())
            with redirect_stderr(StringIO()) as errors:
                status = _run(arguments)
            _write(folder / f"run-{number}-{rank}", [status, errors.getvalue()])
            number += 1
        time.sleep(0.02)
    # What torch would tidy up takes seconds.
    os._exit(0)


def _run(arguments: list[str]) -> int:
    """Run a command line of `llada-train`; returns its exit status."""
    from training.cli import main

    sys.argv = ["llada-train", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _write(file: Path, content: object) -> None:
    """Write a file that is whole as soon as it exists; both processes write files of their own names."""
    new = file.with_name(f"{file.name}.new")
    new.write_text(json.dumps(content))
    new.rename(file)
