"""The output folder of a command: a check that it can be written, and names in it."""

from pathlib import Path

from training.errors import TrainingError

RUN_FILE = "run.yaml"


def require_writable(folder: Path, *, option: str = "--output-dir") -> None:
    """Make the output folder and check that it can be written.

    Raises:
        TrainingError: names the option, the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".write-test"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise TrainingError(f"{option} {folder}: cannot be written: {error.strerror}") from None
