"""Sources of data: files, globs and hub datasets, read record by record, each with the place that it came from."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from training.errors import DataError

_PARQUET_ROWS = 1000

# owner/name, then optionally a configuration and a split; the default split is "train".
_HUB_ID = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.-]+))?")
# A path with one of these is a missing file, not a hub id.
_FILE_SUFFIXES = (
    ".json", ".jsonl", ".jsonlines", ".ndjson", ".parquet", ".arrow", ".txt", ".csv", ".tsv", ".gz", ".bz2", ".xz",
    ".zst", ".zip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Record:
    """One line or row.

    Attributes:
        problem: why it could not be read, in which case `value` is empty.
        share: the share of the source read so far, 0 to 1; None if the source's size is unknown.
    """

    place: str
    value: dict[str, Any]
    problem: str | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a hub dataset (a `name` without a `file`)."""

    name: str
    file: Path | None

    def records(self) -> Iterator[Record]:
        """Read the source from its beginning."""
        if self.file is None:
            return _hub_rows(self.name)
        return _parquet_rows(self.file) if self.file.suffix == ".parquet" else _json_lines(self.file)

    @property
    def version(self) -> list[object]:
        """A value that changes when the content does; part of a shard's identity."""
        if self.file is None:
            return [self.name]
        status = self.file.stat()
        return [str(self.file.resolve()), status.st_size, status.st_mtime_ns]


def find_sources(paths: Iterable[str]) -> list[Source]:
    """Files in the order given, a glob's in sorted order; anything else is taken as a hub dataset's id.

    Raises:
        DataError: no such file, or a glob that matches none.
    """
    sources = []
    for path in paths:
        if Path(path).is_file():
            sources.append(Source(Path(path).name, Path(path)))
        elif Path(path).is_dir():
            raise DataError(f"{path}: is a folder; name its files, or give a glob such as {path}/*.jsonl")
        elif has_magic(path):
            matches = sorted(glob(path, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
            files = [Path(match) for match in matches if Path(match).is_file()]
            if not files:
                raise DataError(f"{path}: matches no file")
            sources += [Source(file.name, file) for file in files]
        elif _HUB_ID.fullmatch(path) and Path(path).suffix.lower() not in _FILE_SUFFIXES:
            sources.append(Source(path, None))
        else:
            raise DataError(f"{path}: no such file, and not a hub dataset's id (owner/name, owner/name:config@split)")
    return sources


def _json_lines(file: Path) -> Iterator[Record]:
    size, num_read = file.stat().st_size, 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            num_read += len(line)
            if not line.strip():
                continue
            place, share = f"{file}, line {number}", num_read / size
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                yield Record(place, {}, f"not JSON ({error.msg} at column {error.colno})", share)
            except UnicodeDecodeError as error:
                yield Record(place, {}, f"not UTF-8 (byte {error.start})", share)
            except (ValueError, RecursionError) as error:  # a number or a nesting beyond Python's limits
                yield Record(place, {}, f"not readable ({error})", share)
            else:
                is_object = isinstance(value, dict)
                problem = None if is_object else f"is a {type(value).__name__}; it must be an object"
                yield Record(place, value if is_object else {}, problem, share)


def _parquet_rows(file: Path) -> Iterator[Record]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        parquet = ParquetFile(file)
    except ArrowInvalid as error:
        raise DataError(f"{file}: not parquet ({error})") from None
    rows = (row for batch in parquet.iter_batches(batch_size=_PARQUET_ROWS) for row in batch.to_pylist())
    for number, row in enumerate(rows, start=1):
        value = {name: value for name, value in row.items() if value is not None}
        yield Record(f"{file}, row {number}", value, share=number / parquet.metadata.num_rows)


def _hub_rows(name: str) -> Iterator[Record]:
    import datasets

    parts = _HUB_ID.fullmatch(name)
    assert parts is not None
    try:
        rows = datasets.load_dataset(parts["name"], parts["config"], split=parts["split"] or "train", streaming=True)
    except Exception as error:  # the library raises many types of error, the hub's and the network's
        raise DataError(f"{name}: the hub dataset cannot be read: {error}") from None
    for number, row in enumerate(rows, start=1):
        yield Record(f"{name}, row {number}", {key: value for key, value in row.items() if value is not None})
