"""Tokenised data: one memory-mapped shard per source, identified by its content, the tokenizer and the options.

A shard is a folder with `tokens.bin` (int32, all samples end to end), `ends.npy` (where each sample ends),
`prompt_lengths.npy`, `suffix_lengths.npy` and `records.npy`. A run that is started again tokenises only what is new, or
was damaged.
"""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from llada_core.files import new_folder, remove_folder
from llada_core.text.tokenizer import Tokenizer
from training.data.formats import Document, ReadReport
from training.data.sources import Source
from training.errors import DataError
from training.integrity import DamagedError, digests_of, read_sealed, require_intact, write_sealed

# Increment when the same text produces different shards.
_FORMAT_VERSION = 8
_RECORDS_AT_ONCE = 1000
_NOTES = "notes.json"
_INDEX = ("ends", "prompt_lengths", "suffix_lengths", "records")

# Called with a source's name, its number of samples so far, and the share of it read, None if its size is unknown.
OnProgress = Callable[[str, int, float | None], None]
TOKEN_DTYPE = np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class Encoded:
    """The ids of one sample; the first `prompt_length` and the last `suffix_length` are never masked.

    Attributes:
        item: which of the items that were encoded together the sample comes from.
    """

    ids: list[int]
    prompt_length: int = 0
    suffix_length: int = 0
    item: int = 0


class Encoder:
    """Turns a source's records into samples, and counts what is left out: too long, or without anything to train."""

    name: str

    def __init__(self, tokenizer: Tokenizer, *, eos_id: int) -> None:
        self.tokenizer = tokenizer
        self.eos_id = eos_id
        self.num_dropped = 0
        self.num_truncated = 0
        self.num_without_target = 0

    def read(self, source: Source, report: ReadReport) -> Iterator[Any]:
        """Read the records of a source as the items that `encode` takes."""
        raise NotImplementedError

    def encode(self, items: Sequence[Any]) -> Iterator[Encoded]:
        """Tokenise items; one item may give any number of samples."""
        raise NotImplementedError

    @property
    def identity(self) -> list[object]:
        """Everything besides the text that decides the tokens."""
        template = [self.tokenizer.chat_template] if self.tokenizer.has_template else []
        return [self.name, self.tokenizer.fingerprint, self.eos_id, *template]


def encode_documents(tokenizer: Tokenizer, documents: Sequence[Document]) -> Iterator[list[int]]:
    """The ids of each document, all parts on all cores at once."""
    ids = iter(tokenizer.encode_batch([part for parts in documents for part in parts]))
    for parts in documents:
        yield [token for _ in parts for token in next(ids)]


@dataclass(frozen=True, slots=True)
class Notes:
    """What a shard was made of.

    Attributes:
        name: the source's name.
        share: the share of the source that was read; None if its size is unknown.
        digest: hash of everything the samples hold.
        num_dropped, num_truncated: samples over the maximum length, left out or cut.
        num_without_target: dialogues without a turn to train.
        left_out: how often each key was left out that says something about a record.
        num_bad: records that could not be used.
        bad_lines: the first of these, as text for the user.
    """

    name: str
    share: float | None
    format: str
    digest: str
    num_dropped: int
    num_truncated: int
    num_without_target: int
    left_out: dict[str, int]
    num_bad: int
    bad_lines: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Tokenised samples of one source.

    Attributes:
        records: the number of the usable record that each sample comes from.
    """

    folder: Path
    notes: Notes
    tokens: np.ndarray
    ends: np.ndarray
    prompt_lengths: np.ndarray
    suffix_lengths: np.ndarray
    records: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> "Shard":
        """Map a shard's tokens and load its index."""
        index = {name: np.load(folder / f"{name}.npy") for name in _INDEX}
        file = folder / "tokens.bin"
        # An empty file cannot be mapped.
        tokens = np.memmap(file, dtype=TOKEN_DTYPE, mode="r") if len(index["ends"]) else np.empty(0, TOKEN_DTYPE)
        return cls(folder, Notes(**read_sealed(folder / _NOTES)["notes"]), tokens, **index)


def tokenize(
    sources: Iterable[Source],
    encoder: Encoder,
    folder: Path,
    *,
    max_bad_lines: int,
    on_progress: OnProgress | None = None,
) -> list[Shard]:
    """The shard of every source, written now if `folder` does not have it yet.

    Raises:
        DataError: more bad lines than `max_bad_lines` over all sources; the disk is full.
    """
    shards: list[Shard] = []
    for source in sources:
        num_bad = sum(shard.notes.num_bad for shard in shards)
        report = ReadReport(max_bad_lines - num_bad)
        shard = Shard.open(_ensure(source, encoder, folder, report, on_progress))
        if num_bad + shard.notes.num_bad > max_bad_lines:
            raise DataError(
                f"{shard.notes.bad_lines}\n({num_bad + shard.notes.num_bad} in all; --max-bad-lines is {max_bad_lines})"
            )
        shards.append(shard)
    return shards


def _ensure(source: Source, encoder: Encoder, folder: Path, report: ReadReport, on_progress: OnProgress | None) -> Path:
    identity = json.dumps([_FORMAT_VERSION, source.version, encoder.identity])
    shard = folder / f"{Path(source.name).stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Another run that shares the folder may be tokenising the same data.
        with FileLock(folder / f".{shard.name}.lock"):
            if shard.exists() and not _is_intact(shard):
                remove_folder(shard)
            if not shard.exists():
                with new_folder(shard) as aside:
                    _write(source, encoder, aside, report, on_progress)
    except OSError as error:
        raise DataError(f"{source.name} cannot be tokenised into {folder}: {error}") from None
    return shard


def _is_intact(shard: Path) -> bool:
    try:
        require_intact(shard, read_sealed(shard / _NOTES)["files"], but=_NOTES)
    except DamagedError:
        return False
    return True


def _write(source: Source, encoder: Encoder, folder: Path, report: ReadReport, on_progress: OnProgress | None) -> None:
    # Eight bytes per sample; a list of Python integers would take four times that.
    lengths, prompt_lengths, suffix_lengths, records = array("q"), array("q"), array("q"), array("q")
    num_records = 0
    before = encoder.num_dropped, encoder.num_truncated, encoder.num_without_target
    digest = hashlib.sha256()
    items = encoder.read(source, report)
    with (folder / "tokens.bin").open("wb") as file:
        while chunk := list(islice(items, _RECORDS_AT_ONCE)):
            encoded = list(encoder.encode(chunk))
            lengths.extend(len(sample.ids) for sample in encoded)
            prompt_lengths.extend(sample.prompt_length for sample in encoded)
            suffix_lengths.extend(sample.suffix_length for sample in encoded)
            records.extend(num_records + sample.item for sample in encoded)
            num_records += len(chunk)
            tokens = np.array([i for sample in encoded for i in sample.ids], dtype=TOKEN_DTYPE).tobytes()
            digest.update(tokens)
            file.write(tokens)
            if on_progress is not None:
                on_progress(source.name, len(lengths), report.share)
    digest.update(lengths.tobytes() + prompt_lengths.tobytes() + suffix_lengths.tobytes())
    np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "prompt_lengths.npy", np.array(prompt_lengths, dtype=np.int32))
    np.save(folder / "suffix_lengths.npy", np.array(suffix_lengths, dtype=np.int32))
    np.save(folder / "records.npy", np.array(records, dtype=np.int64))
    notes = Notes(
        name=source.name,
        share=report.share if source.excerpt is not None else 1.0,
        format=report.format,
        digest=digest.hexdigest()[:16],
        num_dropped=encoder.num_dropped - before[0],
        num_truncated=encoder.num_truncated - before[1],
        num_without_target=encoder.num_without_target - before[2],
        left_out=dict(report.left_out.most_common()),
        num_bad=report.count,
        bad_lines=str(report) if report.count else "",
    )
    write_sealed(folder / _NOTES, {"notes": asdict(notes), "files": digests_of(folder, but=_NOTES)})
