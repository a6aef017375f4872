"""Write files and folders under a temporary name and rename them into place: whatever has its final name is complete.

Temporary names begin with `incomplete`; `remove_incomplete` deletes the folders that a killed process left under them.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it replaces `target` when the block ends without an error."""
    aside = _aside(target)
    yield aside
    aside.replace(target)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target` when the block ends without an error, else it is deleted."""
    aside = make_empty(_aside(target))
    try:
        yield aside
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def make_empty(folder: Path) -> Path:
    """Create `folder`, or delete everything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def replace_folder(aside: Path, target: Path) -> None:
    """Rename a complete folder to `target`, deleting an older `target` first."""
    if target.exists():
        remove_folder(target)
    aside.rename(target)


def move_files(aside: Path, folder: Path, *, last: str) -> None:
    """Move every file of `aside` into `folder` and delete `aside`; the file named `last` makes the folder complete."""
    for file in sorted(aside.iterdir(), key=lambda file: file.name == last):
        file.replace(folder / file.name)
    aside.rmdir()


def remove_folder(folder: Path) -> None:
    """Delete a folder after renaming it, so that a half-deleted folder never looks complete."""
    aside = _aside(folder)
    folder.rename(aside)
    shutil.rmtree(aside)


def remove_incomplete(folder: Path) -> None:
    """Delete the folders in `folder` that a killed process left incomplete."""
    for incomplete in folder.glob("incomplete-*"):
        shutil.rmtree(incomplete)


def _aside(path: Path) -> Path:
    return path.with_name(f"incomplete-{path.name}")
