"""The `export` command: a checkpoint as a Hugging Face folder."""

from collections.abc import Callable
from pathlib import Path

import torch

from training.errors import TrainingError
from training.files import require_writable
from training.options.fields import ExportOptions
from training.run.export import export
from training.run.state import newest_checkpoint


def run_export(options: ExportOptions, *, log: Callable[[str], None]) -> None:
    """Export a checkpoint, or the newest one of an output folder.

    Raises:
        TrainingError: there is no checkpoint, or the output folder is not empty.
    """
    checkpoint = _find_checkpoint(options.checkpoint)
    require_writable(options.output_dir)
    # An export that was stopped leaves these behind.
    if any(entry.name not in ("incomplete", "adapter") for entry in options.output_dir.iterdir()):
        raise TrainingError(f"--output-dir {options.output_dir} is not empty")
    export(checkpoint, options.output_dir, dtype=getattr(torch, options.dtype), base_model=options.base_model)
    log(f"{checkpoint.name} exported to {options.output_dir}; serve it with: llada-server --model {options.output_dir}")


def _find_checkpoint(folder: Path) -> Path:
    if (folder / "state.json").exists():
        return folder
    newest = newest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise TrainingError(
            f"--checkpoint {folder}: neither a checkpoints/step-<n> folder nor an output folder with one"
        )
    return newest
