"""Files that show whether they are whole: after a power cut a disk may hold zeros where a file was written.

Whatever a run reads back is checked: the files of a checkpoint and of a shard against the digests that were noted when
they were written, and the note itself against its own.
"""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from training.errors import TrainingError

_SEAL = "seal"


class DamagedError(TrainingError):
    """A file is not what was written; the message names it and says what is wrong."""


def digest_of(file: Path) -> str:
    """A hash of a file's content, at the speed of a disk."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def digests_of(folder: Path, *, but: str) -> dict[str, str]:
    """The digest of every file in a folder by its name, except the one file named."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != but)
    with ThreadPoolExecutor() as threads:
        return dict(zip((str(file.relative_to(folder)) for file in files), threads.map(digest_of, files), strict=True))


def require_intact(folder: Path, digests: Mapping[str, str], *, but: str) -> None:
    """Check that a folder's files are those whose digests were noted.

    Raises:
        DamagedError: names a file that is missing or has changed.
    """
    found = digests_of(folder, but=but)
    for name, digest in digests.items():
        if name not in found:
            raise DamagedError(f"{folder / name}: is missing")
        if found[name] != digest:
            raise DamagedError(f"{folder / name}: is damaged, its content is not what was written")


def write_sealed(file: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, together with its own digest."""
    file.write_text(json.dumps({**content, _SEAL: _seal(content)}, indent=1))


def read_sealed(file: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        DamagedError: the file is missing, or is not what was written.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        seal = content.pop(_SEAL)
    except FileNotFoundError:
        raise DamagedError(f"{file}: is missing") from None
    except OSError as error:
        raise DamagedError(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise DamagedError(f"{file}: is damaged, it is not the JSON that was written") from None
    if seal != _seal(content):
        raise DamagedError(f"{file}: is damaged, its content is not what was written")
    return content


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
