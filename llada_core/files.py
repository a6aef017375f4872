"""Write files and folders under a temporary name and rename them into place: whatever has its final name is complete.

Temporary names begin with `incomplete`; `remove_incomplete` deletes the folders that a killed process left under them.
`read_text` and `read_json` read the small files of checkpoints, which may come from strangers: never a pipe or a
device, never more than a limit, and an error names the file.
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llada_core.errors import UnsupportedCheckpointError

_LFS_POINTER = b"version https://git-lfs"

# The index of 100,000 tensors has 10 MB; a config has a few kilobytes.
_MOST_JSON_BYTES = 16 << 20


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it replaces `target` when the block ends without an error."""
    aside = _aside(target)
    try:
        yield aside
        _replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `target` when the block ends without an error, else it is deleted."""
    aside = make_empty(_aside(target))
    try:
        yield aside
        _replace(aside, target)
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
    _replace(aside, target)


def move_files(aside: Path, folder: Path, *, last: str) -> None:
    """Move every file of `aside` into `folder` and delete `aside`; the file named `last` makes the folder complete."""
    for file in sorted(aside.iterdir(), key=lambda file: file.name == last):
        _replace(file, folder / file.name)
    aside.rmdir()


def remove_folder(folder: Path) -> None:
    """Delete a folder after renaming it, so that a half-deleted folder never looks complete."""
    aside = _aside(folder)
    folder.rename(aside)
    shutil.rmtree(aside)


def require_content(file: Path) -> None:
    """Check that a file can be read and holds more than a pointer to its content. Symlinks are followed.

    Raises:
        OSError: the file cannot be opened; the message says why.
        UnsupportedCheckpointError: a folder, a pipe or a device; or git-lfs has not replaced the file's pointer by its
            content.
    """
    # Before it is opened: opening a pipe waits for a writer.
    if not stat.S_ISREG(file.stat().st_mode):
        raise UnsupportedCheckpointError(f"{file}: is a folder, a pipe or a device; it must be a regular file")
    with file.open("rb") as content:
        is_pointer = content.read(len(_LFS_POINTER)) == _LFS_POINTER
    if is_pointer:
        raise UnsupportedCheckpointError(
            f"{file}: is a git-lfs pointer, not the content; run `git lfs pull` in its folder"
        )


def share(file: Path) -> None:
    """Give a file the mode that the umask asks for: some writers make theirs readable by the owner only."""
    mask = os.umask(0o077)
    os.umask(mask)
    file.chmod(0o666 & ~mask)


def remove_incomplete(folder: Path) -> None:
    """Delete the folders in `folder` that a killed process left incomplete."""
    for incomplete in folder.glob("incomplete-*"):
        shutil.rmtree(incomplete)


def read_text(file: Path, *, most_bytes: int) -> str:
    """Read a text file.

    Raises:
        OSError: the file cannot be read or is not UTF-8; the message names the file.
        UnsupportedCheckpointError: the file is larger than `most_bytes`, or no regular file.
    """
    require_content(file)
    with file.open("rb") as opened:
        content = opened.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UnsupportedCheckpointError(f"{file}: is larger than {most_bytes} bytes, the most that is read of it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise OSError(f"{file}: is not UTF-8 text: byte {error.start} cannot be decoded") from None


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        OSError: the file cannot be read or is not JSON; the message names the file.
        UnsupportedCheckpointError: the file holds a JSON value other than an object, or is too large.
    """
    text = read_text(file, most_bytes=_MOST_JSON_BYTES)
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except ValueError as error:
        raise OSError(f"{file}: is not JSON: {error}") from None
    except RecursionError:
        raise OSError(f"{file}: is JSON that is nested too deep") from None
    if not isinstance(content, dict):
        raise UnsupportedCheckpointError(f"{file}: holds a {type(content).__name__}; it must hold a JSON object")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _replace(aside: Path, target: Path) -> None:
    """Rename once the content is on the disk, so that a power cut leaves either the old content or the new."""
    _flush(aside)
    aside.replace(target)
    _flush(target.parent, recursive=False)


def _flush(path: Path, *, recursive: bool = True) -> None:
    inside = path.rglob("*") if recursive and path.is_dir() else ()
    for entry in (*inside, path):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError:
            # Some network file systems cannot flush a folder.
            if not entry.is_dir():
                raise
        finally:
            os.close(descriptor)


def _aside(path: Path) -> Path:
    return path.with_name(f"incomplete-{path.name}")
