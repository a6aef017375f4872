"""A peer: how it is installed, how it is started, and what it is asked."""

import json
import os
import subprocess
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent


class PeerError(RuntimeError):
    """A peer could not be installed, or its process ended."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An engine that computes the same network.

    Attributes:
        name: its name in tables, and its folder among the environments.
        worker: the module that its environment runs with a checkpoint's folder and one for scratch files; it answers
            as `answering` describes.
        requirements: the file beside this one that pins every package.
        build: environment variables of the installation; those that are set already take precedence.
        tolerances: for each kind of weights, the largest `measuring.difference` of its logits from ours in float32. A
            kind that is farther off computes something else, and is not timed.
    """

    name: str
    worker: str
    requirements: str
    build: Mapping[str, str]
    tolerances: Mapping[str, float]

    def is_installed(self, environments: Path) -> bool:
        """Whether the environment has the packages that are pinned now."""
        installed = environments / self.name / "installed.txt"
        return installed.exists() and installed.read_text() == self.pinned()

    def install(self, environments: Path) -> None:
        """Make the environment anew.

        Raises:
            PeerError: pip failed; its output has been shown.
        """
        folder = environments / self.name
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install"]
        ran = subprocess.run(
            [*pip, "-r", str(_HERE / self.requirements)], env={**self.build, **os.environ}, check=False
        )
        if ran.returncode:
            raise PeerError(f"{self.name} could not be installed: pip ended with status {ran.returncode}")
        (folder / "installed.txt").write_text(self.pinned())

    def start(self, environments: Path, checkpoint: Path, scratch: Path) -> "PeerProcess":
        """Start a process that computes with the weights of a checkpoint's folder."""
        python = environments.absolute() / self.name / "bin/python"
        return PeerProcess(
            [str(python), "-m", self.worker, str(checkpoint), str(scratch)], scratch / f"{self.name}.log"
        )

    def pinned(self) -> str:
        """Return the requirements, every package of the environment with its version."""
        return (_HERE / self.requirements).read_text()


class PeerProcess:
    """A running worker, which has one thread for its arithmetic; ends with the block.

    Attributes:
        version: the engine's version.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        """Start a worker.

        Args:
            log: the file for what it writes to its standard error.

        Raises:
            PeerError: it ended before it was ready.
        """
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.version: str = self._answer()["version"]

    def __enter__(self) -> "PeerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def cpu_seconds(self, kind: str, token_ids: Sequence[int], logits_file: Path | None = None) -> float:
        """Run a forward pass over the ids; returns the CPU seconds of all threads of the process.

        Args:
            logits_file: where the logits are saved as .npy, float32 [positions, words].

        Raises:
            PeerError: the process ended.
        """
        assert self._process.stdin is not None
        request = {"kind": kind, "token_ids": list(token_ids), "logits_file": logits_file and str(logits_file)}
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # The answer that does not come says why.
        return float(self._answer()["cpu_s"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            *_, last = ["nothing", *self._log.read_text(errors="replace").splitlines()]
            raise PeerError(f"the process ended with status {status}; its last words: {last}")
        return json.loads(line)
