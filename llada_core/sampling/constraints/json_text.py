"""Patterns of JSON values as text: strings, numbers, literals, and values of any kind to a depth.

A pattern is a regular expression in the subset of Python's `re` that constraints take: literals, classes, groups,
alternatives and repetitions. All numbers here stay below 10^18, so that every reader of JSON takes them as they are.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BLANK = " ?"
"""The default between JSON's tokens: at most one blank, after a comma or a colon."""

OBJECT_DEPTH = 3
"""How deep objects and arrays nest where nothing says what is in them."""

# One character of a string; each of them, however it is written, counts as one.
CHARACTER = r'(?:[^"\\\x00-\x1f]|\\["\\/bfnrt])'
# Characters outside the basic plane are pairs of escapes; half a pair is no character.
_UNICODE_ESCAPE = (
    r"u(?:[0-9a-cefA-CEF][0-9a-fA-F]{3}"
    r"|[dD](?:[0-7][0-9a-fA-F]{2}|[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))"
)
STRING = rf'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|{_UNICODE_ESCAPE}))*"'
NUMBER = r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?"
_SCALARS = (STRING, NUMBER, "true", "false", "null")

_MOST_INTEGER = 10**18 - 1
# With at most nine digits before and six after the point, no number is rounded to a bound.
_MOST_BOUNDED_NUMBER = 10**9 - 1
_FRACTION = r"(?:\.[0-9]{1,6})?"


def either(alternatives: Iterable[str]) -> str:
    """Match any of these patterns."""
    distinct = list(dict.fromkeys(alternatives))
    return distinct[0] if len(distinct) == 1 else f"(?:{'|'.join(distinct)})"


def listed(item: str, *, blank: str, least: int = 0, most: int | None = None) -> str:
    """Match `least` to `most` items with commas between them."""
    if most == 0:
        return ""
    further = (
        "*"
        if (least, most) in ((0, None), (1, None))
        else f"{{{max(least - 1, 0)},{'' if most is None else most - 1}}}"
    )
    items = item if most == 1 else f"{item}(?:,{blank}{item}){further}"
    return items if least else f"(?:{items})?"


def value_pattern(depth: int, blank: str = BLANK) -> str:
    """Match any JSON value whose objects and arrays nest at most `depth` deep."""
    if depth == 0:
        return either(_SCALARS)
    return either([*_SCALARS, *_containers(depth, blank)])


def object_pattern(depth: int = OBJECT_DEPTH, blank: str = BLANK) -> str:
    """Match any JSON object that nests at most `depth` deep, itself included."""
    return _containers(depth, blank)[0]


def _containers(depth: int, blank: str) -> tuple[str, str]:
    value = value_pattern(depth - 1, blank)
    members = listed(f"{STRING}:{blank}{value}", blank=blank)
    return rf"\{{{members}\}}", rf"\[{listed(value, blank=blank)}\]"


def literal_pattern(value: Any, blank: str = BLANK) -> str:
    """Match one JSON value; its objects keep the order of their members.

    Raises:
        ValueError: it holds a number that JSON does not have, or half a surrogate pair.
    """
    match value:
        case Mapping():
            members = [f"{literal_pattern(name)}:{blank}{literal_pattern(item, blank)}" for name, item in value.items()]
            return rf"\{{{f',{blank}'.join(members)}\}}"
        case list():
            return rf"\[{f',{blank}'.join(literal_pattern(item, blank) for item in value)}\]"
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()
    return re.escape(text)


def integer_pattern(low: int | None, high: int | None) -> str:
    """Match the integers from `low` to `high`, None being open; empty if there are none of at most 18 digits."""
    low = -_MOST_INTEGER if low is None else max(low, -_MOST_INTEGER)
    high = _MOST_INTEGER if high is None else min(high, _MOST_INTEGER)
    negative = _magnitudes(max(1, -high), -low)
    alternatives = [*([f"-{either(negative)}"] if negative else []), *_magnitudes(max(0, low), high)]
    return either(alternatives) if alternatives else ""


def number_pattern(low: int | None, high: int | None, *, is_low_open: bool, is_high_open: bool) -> str:
    """Match the numbers from `low` to `high`, written without exponent; empty if there are none.

    Args:
        is_low_open: `low` itself is not among them.
        is_high_open: `high` itself is not among them.
    """
    if low is None and high is None:
        return NUMBER
    low = -_MOST_BOUNDED_NUMBER if low is None else low
    high = _MOST_BOUNDED_NUMBER if high is None else high
    negative = _decimals(max(0, -high), -low, is_low_open=is_high_open and high <= 0, is_high_open=is_low_open)
    positive = _decimals(max(0, low), high, is_low_open=is_low_open and low >= 0, is_high_open=is_high_open)
    alternatives = [*([f"-{either(negative)}"] if negative else []), *positive]
    return either(alternatives) if alternatives else ""


def _decimals(low: int, high: int, *, is_low_open: bool, is_high_open: bool) -> list[str]:
    """Alternatives for the decimals from `low`, at least 0, to `high`."""
    if high > _MOST_BOUNDED_NUMBER:
        high, is_high_open = _MOST_BOUNDED_NUMBER, False
    whole = _magnitudes(low + is_low_open, high - 1)
    alternatives = [either(whole) + _FRACTION] if whole else []
    if is_low_open and low < high:
        alternatives.append(rf"{low}\.[0-9]{{0,5}}[1-9]")
    if low <= high and not is_high_open and not (is_low_open and low == high):
        alternatives.append(rf"{high}(?:\.0)?")
    return alternatives


def _magnitudes(low: int, high: int) -> list[str]:
    """Alternatives for the whole numbers from `low`, at least 0, to `high`."""
    if low > high:
        return []
    alternatives = []
    whole_lengths = []
    for length in range(len(str(low)), len(str(high)) + 1):
        smallest, largest = 10 ** (length - 1) if length > 1 else 0, 10**length - 1
        first, last = max(low, smallest), min(high, largest)
        if length > 1 and (first, last) == (smallest, largest):
            whole_lengths.append(length)
        else:
            alternatives.append(_same_length(str(first), str(last)))
    if whole_lengths:
        alternatives.append(f"[1-9][0-9]{{{whole_lengths[0] - 1},{whole_lengths[-1] - 1}}}")
    return alternatives


def _same_length(low: str, high: str) -> str:
    """Match the digits from `low` to `high`, which are equally long."""
    if low == high:
        return low
    if len(low) == 1:
        return f"[{low}-{high}]"
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    rest = len(low) - 1
    alternatives = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        alternatives.append(low[0] + _same_length(low[1:], "9" * rest))
        first += 1
    if high[1:] != "9" * rest:
        alternatives.append(high[0] + _same_length("0" * rest, high[1:]))
        last -= 1
    if first <= last:
        alternatives.append(f"{_same_length(str(first), str(last))}[0-9]{{{rest}}}")
    return either(alternatives)


def optional_members(members: Sequence[tuple[str, bool]], *, blank: str) -> str:
    """Match members of an object in this order, with commas between those that are there.

    Args:
        members: the pattern of each, and whether it must be there.
    """
    required = [index for index, (_, is_required) in enumerate(members) if is_required]
    if required:
        first = required[0]
        before = "".join(f"(?:{member},{blank})?" for member, _ in members[:first])
        return before + members[first][0] + _after(members[first + 1 :], blank)
    # Any of them may be the first.
    alternatives = [member + _after(members[index + 1 :], blank) for index, (member, _) in enumerate(members)]
    return f"(?:{'|'.join(alternatives)})?" if alternatives else ""


def _after(members: Sequence[tuple[str, bool]], blank: str) -> str:
    return "".join(f",{blank}{member}" if is_required else f"(?:,{blank}{member})?" for member, is_required in members)
