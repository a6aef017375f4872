"""Sets of characters as sorted intervals of code points, and the byte sequences that UTF-8 writes them in.

Surrogates are left out: they are code points, but no text holds them.
"""

from collections.abc import Iterable

# Both ends belong to an interval.
Interval = tuple[int, int]
CharacterSet = tuple[Interval, ...]

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
# The last code points that take one, two, three and four bytes.
_LAST_OF_LENGTH = (0x7F, 0x7FF, 0xFFFF, _LAST)


def union(intervals: Iterable[Interval]) -> CharacterSet:
    """Merge intervals into a set: sorted, none touching the next, no surrogates."""
    merged: list[Interval] = []
    for start, stop in sorted(part for interval in intervals for part in _without_surrogates(interval)):
        if merged and start <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return tuple(merged)


def complement(characters: CharacterSet) -> CharacterSet:
    """Return all other characters."""
    gaps, start = [], 0
    for first, last in characters:
        gaps.append((start, first - 1))
        start = last + 1
    gaps.append((start, _LAST))
    return union(gap for gap in gaps if gap[0] <= gap[1])


def byte_sequences(characters: CharacterSet) -> list[tuple[Interval, ...]]:
    """Return sequences of byte intervals; their products are the UTF-8 encodings of the characters, each once."""
    return [sequence for interval in characters for part in _by_length(interval) for sequence in _sequences(*part)]


def _without_surrogates(interval: Interval) -> list[Interval]:
    start, stop = interval
    parts = [(start, min(stop, _SURROGATES[0] - 1)), (max(start, _SURROGATES[1] + 1), stop)]
    return [part for part in parts if part[0] <= part[1]]


def _by_length(interval: Interval) -> list[Interval]:
    """Cut an interval where encodings become longer."""
    parts, start = [], interval[0]
    for last in _LAST_OF_LENGTH:
        stop = min(interval[1], last)
        if start <= stop:
            parts.append((start, stop))
            start = stop + 1
    return parts


def _sequences(start: int, stop: int) -> list[tuple[Interval, ...]]:
    """Cut an interval of equally long encodings until every byte runs through an interval of its own."""
    first, last = chr(start).encode(), chr(stop).encode()
    # A trailing byte has 6 bits. Where the interval does not cover all their values, cut at the next multiple.
    for num_bytes in range(1, len(first)):
        low = (1 << (6 * num_bytes)) - 1
        if start & ~low != stop & ~low:
            if start & low:
                return _sequences(start, start | low) + _sequences((start | low) + 1, stop)
            if stop & low != low:
                return _sequences(start, (stop & ~low) - 1) + _sequences(stop & ~low, stop)
    return [tuple(zip(first, last, strict=True))]


DIGITS = union([(ord("0"), ord("9"))])
WORD = union([*DIGITS, (ord("A"), ord("Z")), (ord("a"), ord("z")), (ord("_"), ord("_"))])
SPACE = union([(ord("\t"), ord("\r")), (ord(" "), ord(" "))])
NOT_NEWLINE = complement(union([(ord("\n"), ord("\n"))]))
