"""JSON strings whose text matches a regular expression (the keyword `pattern` of JSON schema), and known formats.

The expression is read by the standard library's own parser and written again for the text as JSON spells it, in which
a quotation mark is `\\"`. As in JSON schema it may match anywhere in the string, unless `^` and `$` hold it. Classes
such as `\\d` are ASCII's, so that a match is one for every reader of the expression.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

from llada_core.sampling.constraints.characters import DIGITS, SPACE, WORD, CharacterSet, complement, union
from llada_core.sampling.constraints.json_text import CHARACTER, either

_MOST_CHARACTERS = 1000
_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_SHORT_ESCAPES = {0x22: '"', 0x5C: "\\\\", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}
_BEGINNINGS = (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING)
_ENDS = (sre.AT_END, sre.AT_END_STRING)

# What any dialect counts as a space.
_SPACES: CharacterSet = (
    *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
_NOT_ASCII: CharacterSet = ((0x80, _LAST),)


class UnsupportedPatternError(ValueError):
    """The regular expression is none, or has something that cannot be written for JSON strings."""


@dataclass(frozen=True, slots=True)
class StringPattern:
    """The text between the quotation marks of a JSON string.

    Attributes:
        text: its pattern, as JSON spells it.
        shortest, longest: how many characters it may have.
    """

    text: str
    shortest: int
    longest: int


def string_pattern(expression: str) -> StringPattern:
    """Translate a regular expression that a string must match somewhere.

    Raises:
        UnsupportedPatternError: it has more than 1,000 characters, is no regular expression, or has a look-around, a
            back-reference, a flag, an anchor within, or an atomic part.
    """
    if len(expression) > _MOST_CHARACTERS:
        raise UnsupportedPatternError(f"have at most {_MOST_CHARACTERS} characters; it has {len(expression)}")
    try:
        parsed = _parser.parse(expression)
        if parsed.state.flags & ~re.UNICODE.value:
            raise UnsupportedPatternError("have no flags")
        shortest, longest = _width(parsed)
        return StringPattern(_found(list(parsed)), shortest, longest)
    except RecursionError:
        raise UnsupportedPatternError("not be nested as deep") from None
    except (re.error, OverflowError) as error:
        raise UnsupportedPatternError(f"be a regular expression: {error}") from None


def _width(parsed: Any) -> tuple[int, int]:
    """The fewest and most characters of a matching string."""
    shortest, longest = parsed.getwidth()
    is_held = len(parsed) > 1 and _is_at(parsed[0], _BEGINNINGS) and _is_at(parsed[-1], _ENDS)
    return shortest, longest if is_held else _LAST


def _found(items: list[Any]) -> str:
    """The pattern of strings in which `items` are found."""
    for index, (kind, argument) in enumerate(items):
        if kind is sre.BRANCH and any(_has_anchor(branch) for branch in argument[1]):
            rest = items[index + 1 :]
            return either(_found([*items[:index], *branch, *rest]) for branch in argument[1])
    anything = f"{CHARACTER}*"
    before = after = anything
    if items and _is_at(items[0], _BEGINNINGS):
        before, items = "", items[1:]
    if items and _is_at(items[-1], _ENDS):
        after, items = "", items[:-1]
    return before + _sequence(items) + after


def _has_anchor(branch: Iterable[tuple[Any, Any]]) -> bool:
    return any(kind is sre.AT for kind, _ in branch)


def _is_at(item: tuple[Any, Any], places: Sequence[Any]) -> bool:
    return item[0] is sre.AT and item[1] in places


def _sequence(items: Iterable[tuple[Any, Any]]) -> str:
    return "".join(_item(kind, argument) for kind, argument in items)


def _item(kind: Any, argument: Any) -> str:
    if kind in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
        return _character(_ranges_of(kind, argument))
    if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        least, most, repeated = argument
        return f"(?:{_sequence(repeated)}){{{least},{'' if most is sre.MAXREPEAT else most}}}"
    if kind is sre.SUBPATTERN and not argument[1] and not argument[2]:
        return f"(?:{_sequence(argument[3])})"
    if kind is sre.BRANCH:
        return either(_sequence(branch) for branch in argument[1])
    names = {sre.AT: "no anchor within", sre.GROUPREF: "no back-reference", sre.SUBPATTERN: "no flags"}
    raise UnsupportedPatternError(f"have {names.get(kind, 'no look-around and no atomic part')}")


def _ranges_of(kind: Any, argument: Any) -> CharacterSet:
    """The characters that one item of an expression stands for."""
    if kind is sre.ANY:
        return complement(((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029)))
    if kind is sre.LITERAL:
        return ((argument, argument),)
    if kind is sre.NOT_LITERAL:
        return complement(((argument, argument),))
    members = list(argument)
    is_negated = members[0][0] is sre.NEGATE
    ranges = union(interval for member in members[is_negated:] for interval in _member(*member, is_negated=is_negated))
    return complement(ranges) if is_negated else ranges


def _member(kind: Any, argument: Any, *, is_negated: bool) -> CharacterSet:
    """The characters of a member of a class.

    Dialects agree on ASCII. Beyond it a class has only the characters that it has in every dialect, and a negated one
    leaves out those that it may not have in some.
    """
    if kind is sre.LITERAL:
        return ((argument, argument),)
    if kind is sre.RANGE:
        return (argument,)
    classes = {
        sre.CATEGORY_DIGIT: (DIGITS, union((*DIGITS, *_NOT_ASCII))),
        sre.CATEGORY_WORD: (WORD, union((*WORD, *_NOT_ASCII))),
        sre.CATEGORY_SPACE: (SPACE, _SPACES),
        sre.CATEGORY_NOT_DIGIT: (complement(union((*DIGITS, *_NOT_ASCII))), complement(DIGITS)),
        sre.CATEGORY_NOT_WORD: (complement(union((*WORD, *_NOT_ASCII))), complement(WORD)),
        sre.CATEGORY_NOT_SPACE: (complement(_SPACES), complement(SPACE)),
    }
    return classes[argument][is_negated]


def _character(ranges: CharacterSet) -> str:
    """One of these characters as JSON spells it."""
    escaped = [code for code in (*range(0x20), 0x22, 0x5C) if any(first <= code <= last for first, last in ranges)]
    plain = _without(ranges, (*((code, code) for code in (0x22, 0x5C)), (0, 0x1F), _SURROGATES))
    short = "".join(_SHORT_ESCAPES[code] for code in escaped if code in _SHORT_ESCAPES)
    alternatives = [_class(plain)] if plain else []
    if short:
        alternatives.append(rf"\\[{short}]")
    # Control characters with a long escape, only if there is no other way: they would double the size of `[^,]`.
    if not alternatives:
        alternatives = [rf"\\u{code:04x}" for code in escaped]
    if not alternatives:
        raise UnsupportedPatternError("have no class without characters")
    return either(alternatives)


def _without(ranges: CharacterSet, others: Iterable[tuple[int, int]]) -> CharacterSet:
    return complement(union((*complement(ranges), *others)))


def _class(ranges: CharacterSet) -> str:
    if ranges[0][0] == ranges[-1][1]:
        return re.escape(chr(ranges[0][0]))
    return f"[{''.join(_literal(first) + (f'-{_literal(last)}' if last > first else '') for first, last in ranges)}]"


def _literal(code: int) -> str:
    """A character within a class."""
    character = chr(code)
    return character if character.isalnum() and code < 0x80 else f"\\U{code:08x}"


_YEAR = "[1-9][0-9]{3}"
_LEAP_YEAR = "(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
_DAY_TO_28 = "(?:0[1-9]|1[0-9]|2[0-8])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[1-9]|1[0-2])-{_DAY_TO_28}|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP_YEAR}-02-29)"
)
_HOUR_MINUTE = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_MINUTE}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_HOUR_MINUTE})"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,20}"

FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": rf"[A-Za-z0-9](?:[._+-]?[A-Za-z0-9]){{0,20}}@(?:{_LABEL}\.){{1,3}}[A-Za-z]{{2,10}}",
    "ipv4": rf"{_BYTE}(?:\.{_BYTE}){{3}}",
}
"""The text of the supported formats: real dates of the years 1000 to 9999, RFC 3339's times, plain addresses."""
