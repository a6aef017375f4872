"""Sources in parts that fit into memory, for corpora of which only a part at a time is tokenised."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from training.data.files import Record
from training.data.sources import Source

_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Slice(Source):
    """Consecutive records of a source."""

    kept: Sequence[Record] = ()

    def records(self) -> Iterator[Record]:
        """The records again, from the first."""
        return iter(self.kept)

    @property
    def version(self) -> list[object]:
        """Which records they are; whoever reads a stream again has checked that the source is the same."""
        return [self.name, self.kept[0].place, self.kept[-1].place]


def parts_of(sources: Iterable[Source], num_characters: int) -> Iterator[list[Source]]:
    """Parts of about so many characters; one may end in the middle of a source, and may hold several."""
    slices: list[Source] = []
    size = 0
    for source in sources:
        kept: list[Record] = []
        for record in source.records():
            kept.append(record)
            size += len(str(record.value))
            if size >= num_characters:
                yield [*slices, Slice(source.name, source.file, kept=kept)]
                slices, kept, size = [], [], 0
        if kept:
            slices.append(Slice(source.name, source.file, kept=kept))
    if slices:
        yield slices


def marks_of(sources: Iterable[Source]) -> str:
    """A hash by which the sources are recognised without being read: their names, sizes and beginnings."""
    marks: list[object] = []
    for source in sources:
        if source.file is None:
            marks.append(source.version)
        else:
            with source.file.open("rb") as content:
                head = hashlib.sha256(content.read(_HEAD_BYTES)).hexdigest()
            marks.append([source.name, source.file.stat().st_size, head, *source.columns])
    return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:16]
