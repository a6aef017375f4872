"""Text tokenised once: one memory-mapped shard per source file, known by the file, the tokenizer and the options.

A shard is a folder with `tokens.bin` (int32, all samples end to end), `ends.npy` (where each sample ends) and
`prompt_lengths.npy`. It is written aside and renamed, so a shard that exists is whole; a run that is started again
tokenises only what is new.
"""

import hashlib
import json
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from llada_core.text.special_tokens import BOS_TOKEN
from llada_core.text.tokenizer import Tokenizer
from training.data.formats import Dialogue, ReadReport, read_dialogues, read_texts
from training.data.sources import Source
from training.errors import DataError

# Raised when what a shard holds changes for the same text.
_FORMAT_VERSION = 3
_RECORDS_AT_ONCE = 1000

# Told a source's name, the number of its samples so far, and the share of it that is read, None if that is not known.
OnProgress = Callable[[str, int, float | None], None]
TOKEN_DTYPE = np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A sample's ids, of which the first `prompt_length` are never masked."""

    ids: list[int]
    prompt_length: int = 0


@dataclass(frozen=True, slots=True)
class Shard:
    """Tokenised samples of one source.

    Attributes:
        folder: where it lies.
        name: the source's.
        digest: of all that the samples hold.
        num_dropped, num_truncated: samples over the maximal length, left out or cut.
        num_bad, bad_lines: records that could not be used; the first ones, for the user.
    """

    folder: Path
    name: str
    format: str
    digest: str
    tokens: np.ndarray
    ends: np.ndarray
    prompt_lengths: np.ndarray
    num_dropped: int
    num_truncated: int
    num_bad: int
    bad_lines: str

    @classmethod
    def open(cls, folder: Path) -> "Shard":
        notes = json.loads((folder / "notes.json").read_text())
        ends, prompt_lengths = (np.load(folder / f"{name}.npy") for name in ("ends", "prompt_lengths"))
        file = folder / "tokens.bin"
        # An empty file cannot be mapped.
        tokens = np.memmap(file, dtype=TOKEN_DTYPE, mode="r") if len(ends) else np.empty(0, TOKEN_DTYPE)
        return cls(folder, tokens=tokens, ends=ends, prompt_lengths=prompt_lengths, **notes)


class Encoder:
    """From a source's records to samples; counts the samples over the maximal length as it goes."""

    name: str

    def __init__(self, tokenizer: Tokenizer, *, eos_id: int) -> None:
        self.tokenizer = tokenizer
        self.eos_id = eos_id
        self.num_dropped = 0
        self.num_truncated = 0

    def read(self, source: Source, report: ReadReport) -> Iterator[Any]:
        raise NotImplementedError

    def encode(self, items: Sequence[Any]) -> Iterator[Encoded]:
        raise NotImplementedError

    @property
    def identity(self) -> list[object]:
        """What besides the text decides the tokens."""
        return [self.name, self.tokenizer.fingerprint, self.eos_id]


class DocumentEncoder(Encoder):
    """Pre-training: a document's tokens and EOS, which packing keeps."""

    name = "documents"

    def read(self, source: Source, report: ReadReport) -> Iterator[str]:
        return read_texts(source.records(), report)

    def encode(self, items: Sequence[str]) -> Iterator[Encoded]:
        for ids in self.tokenizer.encode_batch(items):
            yield Encoded([*ids, self.eos_id])


class DialogueEncoder(Encoder):
    """SFT: a sample for every assistant turn: its history is the prompt, the reply with EoT and EOS the answer.

    Of a document all is answer: a share of plain text keeps a model able to continue one.
    """

    name = "dialogues"

    def __init__(self, tokenizer: Tokenizer, *, eos_id: int, max_length: int, overlong: str) -> None:
        super().__init__(tokenizer, eos_id=eos_id)
        self.max_length = max_length
        self.overlong = overlong

    def read(self, source: Source, report: ReadReport) -> Iterator[Dialogue | str]:
        return read_dialogues(source.records(), report)

    def encode(self, items: Sequence[Dialogue | str]) -> Iterator[Encoded]:
        texts = [item for item in items if isinstance(item, str)]
        for ids in self.tokenizer.encode_batch(texts):
            yield from self._fit([*ids, self.eos_id], 0)
        yield from self._answers([item for item in items if not isinstance(item, str)])

    def _answers(self, dialogues: Sequence[Dialogue]) -> Iterator[Encoded]:
        bos_id = self.tokenizer.token_to_id(BOS_TOKEN)
        assert bos_id is not None
        answer_header = self.tokenizer.header("assistant")
        for dialogue, turns in zip(dialogues, self.tokenizer.encode_turns(dialogues), strict=True):
            history = [bos_id]
            for message, turn in zip(dialogue, turns, strict=True):
                if message.role == "assistant":
                    yield from self._fit([*history, *turn, self.eos_id], len(history) + len(answer_header))
                history += turn

    def _fit(self, ids: list[int], prompt_length: int) -> Iterator[Encoded]:
        if len(ids) > self.max_length:
            # Of a prompt that long nothing of the answer would be left.
            if self.overlong == "drop" or prompt_length >= self.max_length:
                self.num_dropped += 1
                return
            self.num_truncated += 1
        yield Encoded(ids[: self.max_length], prompt_length)

    @property
    def identity(self) -> list[object]:
        return [*super().identity, self.max_length, self.overlong]


def tokenize(
    sources: Iterable[Source],
    encoder: Encoder,
    folder: Path,
    *,
    max_bad_lines: int,
    on_progress: OnProgress | None = None,
) -> list[Shard]:
    """The shard of every source, made now if it is not yet in `folder`.

    Raises:
        DataError: more bad lines than `max_bad_lines`, over all sources; a disk that is full.
    """
    shards: list[Shard] = []
    for source in sources:
        num_bad = sum(shard.num_bad for shard in shards)
        report = ReadReport(max_bad_lines - num_bad)
        shard = Shard.open(_ensure(source, encoder, folder, report, on_progress))
        if num_bad + shard.num_bad > max_bad_lines:
            raise DataError(
                f"{shard.bad_lines}\n({num_bad + shard.num_bad} in all; --max-bad-lines is {max_bad_lines})"
            )
        shards.append(shard)
    return shards


def _ensure(source: Source, encoder: Encoder, folder: Path, report: ReadReport, on_progress: OnProgress | None) -> Path:
    identity = json.dumps([_FORMAT_VERSION, source.version, encoder.identity])
    shard = folder / f"{Path(source.name).stem}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if not shard.exists():
        aside = shard.with_name(f"incomplete-{shard.name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            _write(source, encoder, aside, report, on_progress)
            aside.rename(shard)
        except OSError as error:
            raise DataError(f"{source.name} cannot be tokenised into {folder}: {error}") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return shard


def _write(source: Source, encoder: Encoder, folder: Path, report: ReadReport, on_progress: OnProgress | None) -> None:
    # Eight bytes a sample: a list of Python's integers would take four times that.
    lengths, prompt_lengths = array("q"), array("q")
    dropped_before, truncated_before = encoder.num_dropped, encoder.num_truncated
    digest = hashlib.sha256()
    items = encoder.read(source, report)
    with (folder / "tokens.bin").open("wb") as file:
        while chunk := list(islice(items, _RECORDS_AT_ONCE)):
            encoded = list(encoder.encode(chunk))
            lengths.extend(len(sample.ids) for sample in encoded)
            prompt_lengths.extend(sample.prompt_length for sample in encoded)
            tokens = np.array([i for sample in encoded for i in sample.ids], dtype=TOKEN_DTYPE).tobytes()
            digest.update(tokens)
            file.write(tokens)
            if on_progress is not None:
                on_progress(source.name, len(lengths), report.share)
    digest.update(lengths.tobytes() + prompt_lengths.tobytes())
    np.save(folder / "ends.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "prompt_lengths.npy", np.array(prompt_lengths, dtype=np.int32))
    notes = {
        "name": source.name,
        "format": report.format,
        "digest": digest.hexdigest()[:16],
        "num_dropped": encoder.num_dropped - dropped_before,
        "num_truncated": encoder.num_truncated - truncated_before,
        "num_bad": report.count,
        "bad_lines": str(report) if report.count else "",
    }
    (folder / "notes.json").write_text(json.dumps(notes))
