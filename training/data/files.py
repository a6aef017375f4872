"""Data files as records: JSON lines, a JSON array, objects over several lines, parquet; plain or compressed.

What a file is shows in its first bytes, not in its name. Nothing is read whole: an array gives one record at a time.
"""

import bz2
import codecs
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, cast

from training.errors import DataError

_PARQUET_ROWS = 1000
_HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 16
# Characters of one value of an array; a line that was never closed would else be read to the end of the file.
_MAX_VALUE_LENGTH = 1 << 28
# A value that was cut off is noticed at most this far from the end of the text.
_LONGEST_JSON_WORD = len("-Infinity")
_SPACE, _SPACE_AND_COMMAS = re.compile(r"[ \t\r\n]*"), re.compile(r"[ \t\r\n,]*")

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_PARQUET = b"PAR1"
_NOT_DATA = {
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"ARROW1": "is an Arrow file; save it as parquet",
    b"\xff\xff\xff\xff": "is an Arrow stream; save it as parquet",
    b"\x80\x04": "is a pickle, which is not read; save it as JSON lines",
    b"\xff\xfe": "is UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8",
    b"version https://git-lfs": "is a git-lfs pointer, not the content; run `git lfs pull` in its folder",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One line, item or row.

    Attributes:
        problem: why it could not be read, in which case `value` is empty.
        share: the share of the source read so far, 0 to 1; None if the source's size is unknown.
    """

    place: str
    value: Mapping[str, Any]
    problem: str | None = None
    share: float | None = None


def read_file(file: Path) -> Iterator[Record]:
    """Read the records of a file.

    Raises:
        DataError: it is something else, or damaged so that the rest of it cannot be read; says what it is.
    """
    with file.open("rb", buffering=_HEAD_BYTES) as raw:
        head = raw.peek(_HEAD_BYTES)  # type: ignore[attr-defined]
        for magic, problem in _NOT_DATA.items():
            if head.startswith(magic):
                raise DataError(f"{file}: {problem}")
        compression = next((name for magic, name in _COMPRESSIONS.items() if head.startswith(magic)), None)
        if head.startswith(_PARQUET) or (compression is None and file.suffix == ".parquet"):
            yield from _parquet_rows(file)
            return
        try:
            with _decompressed(raw, compression) as stream:
                yield from _json_records(file, raw, stream)
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{file}: the {compression or 'file'} cannot be read to its end: {error}") from None


def _decompressed(raw: BinaryIO, compression: str | None) -> BufferedReader:
    match compression:
        case "gzip":
            stream: object = gzip.GzipFile(fileobj=raw)
        case "bzip2":
            stream = bz2.BZ2File(raw)
        case "xz":
            stream = lzma.LZMAFile(raw)  # noqa: SIM115, closing it would not close `raw`
        case "zstd":
            from pyarrow import CompressedInputStream

            stream = CompressedInputStream(raw, "zstd")
        case _:
            return cast(BufferedReader, raw)
    return BufferedReader(cast(RawIOBase, stream), _HEAD_BYTES)


def _json_records(file: Path, raw: BinaryIO, stream: BufferedReader) -> Iterator[Record]:
    size = file.stat().st_size
    head = stream.peek(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(b"[") and not _is_first_of_several_lines(head):
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _record(f"{file}, line {number}", line, min(1.0, raw.tell() / size))
        return
    for number, value in enumerate(_values(file, stream, is_array=head.startswith(b"[")), start=1):
        yield _object(f"{file}, item {number}", value, min(1.0, raw.tell() / size))


def _is_first_of_several_lines(head: bytes) -> bool:
    """Whether the first line begins an object that goes on in the next line."""
    line, newline, _ = head.partition(b"\n")
    if not newline or not line.startswith(b"{"):
        return False
    try:
        text = line.decode().rstrip()
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except (ValueError, RecursionError):
        return False
    return False


def _record(place: str, line: bytes, share: float) -> Record:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return Record(place, {}, f"not JSON ({error.msg} at column {error.colno})", share)
    except UnicodeDecodeError as error:
        return Record(place, {}, f"not UTF-8 (byte {error.start})", share)
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond Python's limits
        return Record(place, {}, f"not readable ({error})", share)
    return _object(place, value, share)


def _object(place: str, value: object, share: float) -> Record:
    if isinstance(value, dict):
        return Record(place, value, None, share)
    return Record(place, {}, f"is a {type(value).__name__}; it must be an object", share)


def _values(file: Path, stream: BufferedReader, *, is_array: bool) -> Iterator[object]:
    """The items of an array, or values one after the other; each is parsed as soon as all of its text is there."""
    characters = codecs.getincrementaldecoder("utf-8-sig")()
    text, start, number, is_open, is_whole = "", 0, 1, False, False
    while True:
        between = _SPACE_AND_COMMAS if is_array and number > 1 else _SPACE
        start = between.match(text, start).end()  # type: ignore[union-attr]  # it also matches nothing
        if is_array and not is_open and start < len(text):
            start, is_open = start + 1, True  # the bracket by which the array was recognised
            continue
        if is_array and text.startswith("]", start):
            _require_end(file, text[start + 1 :].encode(), stream)
            return
        if is_whole and not is_array and start == len(text):
            return
        try:
            value, end = _parse(text, start, is_whole=is_whole)
            if end is not None:
                yield value
                start, number = end, number + 1
                continue
            content = stream.read(max(_CHUNK_BYTES, len(text) - start))
            text, start, is_whole = text[start:] + characters.decode(content, final=not content), 0, not content
        except (ValueError, RecursionError) as error:
            problem = (
                f"not JSON ({error.msg})" if isinstance(error, json.JSONDecodeError) else f"not readable ({error})"
            )
            raise DataError(f"{file}, item {number}: {problem}") from None


def _require_end(file: Path, rest: bytes, stream: BufferedReader) -> None:
    """Check that only white space follows an array, however much of it there is."""
    while rest or (rest := stream.read(_CHUNK_BYTES)):
        if rest.strip():
            raise DataError(f"{file}: something follows the array")
        rest = b""


def _parse(text: str, start: int, *, is_whole: bool) -> tuple[object, int | None]:
    """The value that begins at `start` and the position after it, None if more text is needed to tell.

    Raises:
        ValueError: it is no JSON, however the text goes on; RecursionError: it is nested too deep.
    """
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        is_cut = error.msg.startswith("Unterminated") or error.pos >= len(text) - _LONGEST_JSON_WORD
        if is_whole or not is_cut:
            raise
        if len(text) - start > _MAX_VALUE_LENGTH:
            raise ValueError(f"longer than {_MAX_VALUE_LENGTH:,} characters, or never closed") from None
        return None, None
    return value, end if is_whole or end < len(text) else None


def _parquet_rows(file: Path) -> Iterator[Record]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        parquet = ParquetFile(file)
        rows = (row for batch in parquet.iter_batches(batch_size=_PARQUET_ROWS) for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            value = {name: value for name, value in row.items() if value is not None}
            yield Record(f"{file}, row {number}", value, share=number / parquet.metadata.num_rows)
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: not parquet ({error})") from None
