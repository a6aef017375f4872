"""Output folders and files: what cannot be written is found at the start."""

from pathlib import Path

from training.errors import TrainingError


def require_writable(folder: Path, *, option: str = "--output-dir") -> None:
    """Make the output folder, or find out now that it cannot be written.

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
