"""Sources of data: files, globs and hub datasets, read record by record, each with the place that it came from."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from glob import glob, has_magic
from pathlib import Path

from training.data.files import Record, read_file
from training.errors import DataError
from training.integrity import digest_of

# owner/name, then optionally a configuration and a split; the default split is "train".
_HUB_ID = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.-]+))?")
_SHARE = re.compile(r"\d+(\.\d+)?|\.\d+")
# A path with one of these is a missing file, not a hub id.
_FILE_SUFFIXES = (
    ".json", ".jsonl", ".jsonlines", ".ndjson", ".parquet", ".arrow", ".txt", ".csv", ".tsv", ".gz", ".bz2", ".xz",
    ".zst", ".zip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a hub dataset (a `name` without a `file`).

    Attributes:
        columns: the source's column by the format's name for it, as pairs.
        excerpt: about how many characters of its records are read; None for all of it.
    """

    name: str
    file: Path | None
    columns: tuple[tuple[str, str], ...] = ()
    excerpt: int | None = None

    def records(self) -> Iterator[Record]:
        """Read the source from its beginning."""
        records = _hub_rows(self.name) if self.file is None else read_file(self.file)
        if self.excerpt is not None:
            records = _first(records, self.excerpt)
        return (_renamed(record, self.columns) for record in records) if self.columns else records

    @property
    def version(self) -> list[object]:
        """A value that changes when the content does, wherever it lies; part of a shard's identity."""
        if self.excerpt is not None:
            # Only for this process: a digest would read the whole file.
            return [self.name, str(self.file), self.excerpt, *self.columns]
        content = [self.name, _hub_revision(self.name)] if self.file is None else [digest_of(self.file)]
        return [*content, *self.columns]


def find_sources(paths: Iterable[str], columns: Mapping[str, str] | None = None) -> list[Source]:
    """Files in the order given, a glob's in sorted order; anything else is taken as a hub dataset's id.

    Args:
        columns: the sources' column by the format's name for it.

    Raises:
        DataError: no such file, or a glob that matches none.
    """
    pairs = tuple((columns or {}).items())
    return [Source(name, file, pairs) for path in paths for name, file in _found(path)]


def excerpts(sources: Sequence[Source], num_characters: int) -> list[Source]:
    """The beginnings of the sources, together about so many characters."""
    return [replace(source, excerpt=num_characters // len(sources)) for source in sources]


def split_share(path: str) -> tuple[str, Fraction | None]:
    """A path and the share given after it, as in `chats.jsonl=0.3`; None if there is none.

    Raises:
        DataError: a share of 0.
    """
    name, equals, number = path.rpartition("=")
    if not equals or Path(path).exists() or not _SHARE.fullmatch(number):
        return path, None
    if not (share := Fraction(number)):
        raise DataError(f"{path}: a share must be above 0; leave the path out instead")
    return name, share


def _found(path: str) -> list[tuple[str, Path | None]]:
    """The files of a path and their names, or a hub dataset's id."""
    if Path(path).is_file():
        return [(Path(path).name, Path(path))]
    if Path(path).is_dir():
        raise DataError(f"{path}: is a folder; name its files, or give a glob such as {path}/*.jsonl")
    if has_magic(path):
        matches = sorted(glob(path, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
        files = [Path(match) for match in matches if Path(match).is_file()]
        if not files:
            raise DataError(f"{path}: matches no file")
        return [(file.name, file) for file in files]
    if _HUB_ID.fullmatch(path) and Path(path).suffix.lower() not in _FILE_SUFFIXES:
        return [(path, None)]
    raise DataError(f"{path}: no such file, and not a hub dataset's id (owner/name, owner/name:config@split)")


def _first(records: Iterator[Record], num_characters: int) -> Iterator[Record]:
    """About so many characters of the records; if these are all, the last one says so."""
    last: Record | None = None
    for record in records:
        if last is not None:
            yield last
            num_characters -= len(str(last.value))
            if num_characters <= 0:
                return
        last = record
    if last is not None:
        yield replace(last, share=1.0)


def _renamed(record: Record, columns: Iterable[tuple[str, str]]) -> Record:
    """The record under the format's names."""
    if record.problem is not None:
        return record
    for _, column in columns:
        if record.value.get(column) is None:
            problem = f"has nothing in the column {column!r}; its columns are {sorted(record.value)}"
            return replace(record, value={}, problem=problem)
    moved = {column for _, column in columns}
    others = {name: value for name, value in record.value.items() if name not in moved}
    return replace(record, value=others | {name: record.value[column] for name, column in columns})


@cache
def _hub_revision(name: str) -> str:
    """The commit of a hub dataset: what is tokenised now is what a run that goes on later reads."""
    from huggingface_hub import HfApi

    parts = _HUB_ID.fullmatch(name)
    assert parts is not None
    try:
        return str(HfApi().dataset_info(parts["name"]).sha)
    except Exception as error:  # the library raises many types of error, the hub's and the network's
        raise DataError(f"{name}: the hub dataset cannot be read: {error}") from None


def _hub_rows(name: str) -> Iterator[Record]:
    import datasets

    parts = _HUB_ID.fullmatch(name)
    assert parts is not None
    try:
        rows = datasets.load_dataset(
            parts["name"],
            parts["config"],
            split=parts["split"] or "train",
            revision=_hub_revision(name),
            streaming=True,
        )
    except Exception as error:  # the library raises many types of error, the hub's and the network's
        raise DataError(f"{name}: the hub dataset cannot be read: {error}") from None
    for number, row in enumerate(rows, start=1):
        yield Record(f"{name}, row {number}", {key: value for key, value in row.items() if value is not None})
