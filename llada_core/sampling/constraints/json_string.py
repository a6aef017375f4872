"""JSON strings whose text matches a regular expression (the keyword `pattern` of JSON schema), and known formats.

The expression's tree is written again for the text as JSON spells it, in which a quotation mark is `\\"`. As in JSON
schema it may match anywhere in the string, unless `^` and `$` hold it. Classes such as `\\d` are ASCII's, so that a
match is one for every reader of the expression.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from llada_core.sampling.constraints.anchors import ANYTHING, matched_somewhere
from llada_core.sampling.constraints.characters import DIGITS, SPACE, WORD, CharacterSet, complement, union
from llada_core.sampling.constraints.json_text import CHARACTER, either
from llada_core.sampling.constraints.syntax import (
    Anchor,
    Characters,
    Choice,
    Dialect,
    Node,
    PatternError,
    Repeat,
    Sequence,
    parse,
)

_MOST_CHARACTERS = 1000
_SHORT_ESCAPES = {0x22: '"', 0x5C: "\\\\", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}

_NEWLINES: CharacterSet = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))
# What any dialect counts as a space.
_SPACES: CharacterSet = (
    *((0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A)),
    *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
)
# What any dialect may count as a digit or a letter.
_DIGITS = union((*DIGITS, (0x80, 0x10FFFF)))
_WORD = union((*WORD, (0x80, 0x10FFFF)))
# Dialects agree on ASCII. Beyond it a class has only the characters that it has in every dialect, and a negated one
# leaves out those that it may not have in some.
_AGREED = Dialect(
    dot=complement(_NEWLINES),
    classes={
        **{"d": DIGITS, "w": WORD, "s": SPACE},
        **{"D": complement(_DIGITS), "W": complement(_WORD), "S": complement(_SPACES)},
    },
    excluded={
        **{"d": _DIGITS, "w": _WORD, "s": _SPACES},
        **{"D": complement(DIGITS), "W": complement(WORD), "S": complement(SPACE)},
    },
)


@dataclass(frozen=True, slots=True)
class StringPattern:
    """The text between the quotation marks of a JSON string.

    Attributes:
        text: its pattern, as JSON spells it.
        shortest, longest: how many characters it may have; no limit is None.
    """

    text: str
    shortest: int
    longest: int | None


def string_pattern(expression: str) -> StringPattern:
    """Translate a regular expression that a string must match somewhere.

    Raises:
        PatternError: it has more than 1,000 characters, is no regular expression, or has a look-around, a
            back-reference, a flag, an anchor within, or an atomic part.
    """
    if len(expression) > _MOST_CHARACTERS:
        raise PatternError(f"has {len(expression)} characters; it must have at most {_MOST_CHARACTERS}")
    tree = matched_somewhere(parse(expression, _AGREED))
    return StringPattern(_written(tree), *_lengths(tree))


def _lengths(node: Node) -> tuple[int, int | None]:
    """The fewest and the most characters that match; no limit is None."""
    match node:
        case Characters():
            return 1, 1
        case Repeat(part, least, most):
            shortest, longest = _lengths(part)
            if longest is not None and most is not None:
                return shortest * least, longest * most
            return shortest * least, 0 if longest == 0 or most == 0 else None
        case Sequence(parts) | Choice(parts):
            lengths = [_lengths(part) for part in parts]
            total, most_of = (min, max) if isinstance(node, Choice) else (sum, sum)
            longest_of = [longest for _, longest in lengths if longest is not None]
            is_limited = len(longest_of) == len(lengths)
            return total(shortest for shortest, _ in lengths), most_of(longest_of) if is_limited else None
        case Anchor():
            return 0, 0


def _written(node: Node) -> str:
    """The pattern of the matching texts as JSON spells them."""
    match node:
        case Characters(characters):
            return _character(characters)
        case Sequence(parts):
            return "".join(_written(part) for part in parts)
        case Choice(alternatives):
            return either(_written(alternative) for alternative in alternatives)
        case Repeat(part, least, most):
            if node == ANYTHING:
                return f"{CHARACTER}*"
            return f"(?:{_written(part)}){{{least},{'' if most is None else most}}}"
        case Anchor():
            raise TypeError("anchors must be taken out of a tree first")


def _character(characters: CharacterSet) -> str:
    """One of these characters as JSON spells it."""
    escaped = [code for code in (*range(0x20), 0x22, 0x5C) if any(a <= code <= b for a, b in characters)]
    plain = _without(characters, ((0x22, 0x22), (0x5C, 0x5C), (0, 0x1F)))
    short = "".join(_SHORT_ESCAPES[code] for code in escaped if code in _SHORT_ESCAPES)
    alternatives = [_class(plain)] if plain else []
    if short:
        alternatives.append(rf"\\[{short}]")
    # Control characters with a long escape, only if there is no other way: they would double the size of `[^,]`.
    if not alternatives:
        alternatives = [rf"\\u{code:04x}" for code in escaped]
    if not alternatives:
        raise PatternError("has a class without characters")
    return either(alternatives)


def _without(characters: CharacterSet, others: Iterable[tuple[int, int]]) -> CharacterSet:
    return complement(union((*complement(characters), *others)))


def _class(characters: CharacterSet) -> str:
    if characters[0][0] == characters[-1][1]:
        return re.escape(chr(characters[0][0]))
    return f"[{''.join(_literal(a) + (f'-{_literal(b)}' if b > a else '') for a, b in characters)}]"


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
