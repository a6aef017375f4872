"""A checkpoint's `generation_config.json`: special ids, the sampler's defaults, and whatever else its authors wrote."""

import shutil
from pathlib import Path
from typing import Any

from llada_core.files import read_json

_NAME = "generation_config.json"


def generation_file(folder: Path) -> Path:
    """Return the file's place in a checkpoint's folder."""
    return folder / _NAME


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Return the file's content; empty if there is none.

    Raises:
        OSError: the file cannot be read or is not JSON.
    """
    file = generation_file(folder)
    return read_json(file) if file.exists() else {}


def copy_generation_config(source: Path, folder: Path) -> None:
    """Copy the file of a checkpoint into another folder, if there is one."""
    if generation_file(source).exists():
        shutil.copyfile(generation_file(source), generation_file(folder))
