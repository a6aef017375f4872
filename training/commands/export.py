"""The `export` command: a checkpoint as a Hugging Face folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from training.errors import TrainingError
from training.files import require_writable
from training.options.fields import ExportOptions
from training.run.export import export, merge_adapter
from training.run.state import newest_checkpoint, read_state


def run_export(options: ExportOptions, *, log: Callable[[str], None]) -> None:
    """Export a checkpoint, the newest one of an output folder, or an adapter merged into its base model.

    Raises:
        TrainingError: there is no checkpoint, or the output folder is not empty.
    """
    with _left_as_found(options.output_dir):
        require_writable(options.output_dir)
        # An export that was stopped leaves these behind.
        if any(entry.name not in ("incomplete", "adapter") for entry in options.output_dir.iterdir()):
            raise TrainingError(f"--output-dir {options.output_dir} is not empty")
        source = _export(options)
    model = str(options.output_dir)
    if options.adapter_only:
        base = options.base_model or read_state(source).run.base_model
        model = f"{base} --adapter {options.output_dir / 'adapter'}"
    log(f"{source.name} exported to {options.output_dir}; serve it with: llada-server --model {model}")


def _export(options: ExportOptions) -> Path:
    """Export, and return what was exported."""
    dtype = getattr(torch, options.dtype)
    if options.adapter is not None:
        merge_adapter(options.adapter, options.output_dir, dtype=dtype, base_model=options.base_model)
        return options.adapter
    assert options.checkpoint is not None
    source = _find_checkpoint(options.checkpoint)
    export(source, options.output_dir, dtype=dtype, base_model=options.base_model, adapter_only=options.adapter_only)
    return source


@contextmanager
def _left_as_found(folder: Path) -> Iterator[None]:
    """After an error no empty folder stays that was not there before."""
    was_there = folder.exists()
    try:
        yield
    except BaseException:
        if not was_there:
            with suppress(OSError):
                folder.rmdir()
        raise


def _find_checkpoint(folder: Path) -> Path:
    if (folder / "state.json").exists():
        return folder
    newest = newest_checkpoint(folder / "checkpoints")
    if newest is None:
        raise TrainingError(
            f"--checkpoint {folder}: neither a checkpoints/step-<n> folder nor an output folder with one"
        )
    return newest
