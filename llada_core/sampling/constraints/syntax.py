"""Patterns: the regular subset of the syntax of Python's `re`, read into a tree.

Every pattern that is accepted here is accepted by `re` and, but for the classes of another dialect, means what it means
there under `re.ASCII`. What is not regular (look-around, back-references) is refused by name and position.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn

from llada_core.errors import InvalidParameterError, shorten
from llada_core.sampling.constraints.characters import (
    DIGITS,
    NOT_NEWLINE,
    SPACE,
    WORD,
    CharacterSet,
    complement,
    union,
)

MAX_PATTERN_LENGTH = 65536
MAX_DEPTH = 64
MAX_REPEAT = 10000


class PatternError(ValueError):
    """A pattern is wrong or not supported; the message says what it "has" and where."""


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of a set."""

    characters: CharacterSet


@dataclass(frozen=True, slots=True)
class Sequence:
    """Parts one after another; none for the empty text."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several alternatives."""

    alternatives: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part `least` to `most` times; `most` is None where there is no limit."""

    part: "Node"
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Anchor:
    """An end of the text.

    Attributes:
        text, place: how it is written, and where in the pattern.
    """

    end: Literal["start", "end"]
    text: str
    place: int


Node = Characters | Sequence | Choice | Repeat | Anchor


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the characters mean that stand for several.

    Attributes:
        dot: what `.` stands for.
        classes: what `\\d` and its like stand for, by their letter.
        excluded: the same within `[^...]`, whose members are left out.
    """

    dot: CharacterSet
    classes: Mapping[str, CharacterSet]
    excluded: Mapping[str, CharacterSet]


_CLASSES = {
    "d": DIGITS,
    "D": complement(DIGITS),
    "w": WORD,
    "W": complement(WORD),
    "s": SPACE,
    "S": complement(SPACE),
}
PYTHON = Dialect(NOT_NEWLINE, _CLASSES, _CLASSES)
"""`re` under `re.ASCII`."""

_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_OCTAL = frozenset("01234567")
_ANCHORS: dict[str, Literal["start", "end"]] = {"^": "start", "\\A": "start", "$": "end", "\\Z": "end"}
_UNSUPPORTED_ANCHORS = frozenset("bBz")
_QUANTIFIERS = frozenset("*+?")
_COUNTS = re.compile(r"{(\d*)(,?)(\d*)}", re.ASCII)
# What may follow `(?`, longest first, and its name in errors.
_REFUSED_GROUPS = {
    "<=": "look-behind (?<=",
    "<!": "look-behind (?<!",
    "P=": "a back-reference (?P=",
    "=": "look-ahead (?=",
    "!": "look-ahead (?!",
    ">": "an atomic group (?>",
    "(": "a conditional group (?(",
    "#": "a comment (?#",
}


def parse(pattern: str, dialect: Dialect = PYTHON) -> Node:
    """Read a pattern.

    Raises:
        PatternError: what is wrong or not supported, and where.
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise PatternError(f"has {len(pattern)} characters; it must have at most {MAX_PATTERN_LENGTH}")
    return _Parser(pattern, dialect).parse()


def refuse(rule: str) -> NoReturn:
    """Raise the error of a pattern that breaks a rule."""
    raise InvalidParameterError(f"regex {rule}", "regex")


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str, dialect: Dialect) -> None:
        self._pattern = pattern
        self._dialect = dialect
        self._place = 0
        self._depth = 0
        self._names: set[str] = set()

    def parse(self) -> Node:
        node = self._choice()
        if self._peek() == ")":
            self._refuse("has an unbalanced )")
        return node

    def _choice(self) -> Node:
        alternatives = [self._sequence()]
        while self._peek() == "|":
            self._place += 1
            alternatives.append(self._sequence())
        return alternatives[0] if len(alternatives) == 1 else Choice(tuple(alternatives))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._anchor() or self._quantified(self._atom()))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _anchor(self) -> Anchor | None:
        """Read an anchor, if one comes next."""
        start = self._place
        text = self._pattern[start : start + 2] if self._peek() == "\\" else self._peek()
        if text not in _ANCHORS:
            return None
        self._place += len(text)
        if self._peek() in _QUANTIFIERS or self._is_counted_repeat():
            self._refuse("has nothing to repeat")
        return Anchor(_ANCHORS[text], text, start)

    def _atom(self) -> Node:
        start, character = self._place, self._next()
        match character:
            case "." | "[":
                return Characters(self._dialect.dot if character == "." else self._set(start))
            case "(":
                return self._group(start)
            case "\\":
                return Characters(_set_of(self._escape(start, self._dialect.classes)))
            case "*" | "+" | "?":
                self._refuse("has nothing to repeat", start)
            case "{":
                self._place = start
                if self._is_counted_repeat():
                    self._refuse("has nothing to repeat", start)
                self._place = start + 1
        return Characters(_set_of(character))

    def _group(self, start: int) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"has more than {MAX_DEPTH} groups inside each other", start)
        if self._peek() == "?":
            self._place += 1
            self._open_special_group(start)
        node = self._choice()
        if self._peek() != ")":
            self._refuse("has a group that is not closed", start)
        self._place += 1
        self._depth -= 1
        return node

    def _open_special_group(self, start: int) -> None:
        rest = self._pattern[self._place : self._place + 2]
        if rest.startswith(":"):
            self._place += 1
            return
        for opening, name in _REFUSED_GROUPS.items():
            if rest.startswith(opening):
                self._refuse(f"has {name}, which is not supported", start)
        if rest == "P<":
            end = self._pattern.find(">", self._place)
            name = self._pattern[self._place + 2 : end]
            if end < 0 or not name.isidentifier() or name in self._names:
                self._refuse("has a group whose name is not closed, not an identifier or there twice", start)
            self._names.add(name)
            self._place = end + 1
            return
        if rest and rest[0] in "aiLmsux-":
            self._refuse("has inline flags, which are not supported", start)
        self._refuse("has an unknown group (?", start)

    def _quantified(self, part: Node) -> Node:
        start = self._place
        match self._peek():
            case "*":
                least, most = 0, None
            case "+":
                least, most = 1, None
            case "?":
                least, most = 0, 1
            case "{" if self._is_counted_repeat():
                least, most = self._counts()
            case _:
                return part
        self._place += 1
        if self._peek() == "?":
            # Lazy: another order of trying, the same texts.
            self._place += 1
        elif self._peek() == "+":
            self._refuse("has a possessive repeat, which is not supported", start)
        if self._peek() in _QUANTIFIERS or self._is_counted_repeat():
            self._refuse("has a repeat of a repeat; write it with a group (?:...)", self._place)
        return Repeat(part, least, most)

    def _is_counted_repeat(self) -> bool:
        """Whether `{2}`, `{2,}`, `{,3}` or `{2,3}` comes next; in all else `{` is a character."""
        counts = _COUNTS.match(self._pattern, self._place)
        return counts is not None and counts[0] != "{}"

    def _counts(self) -> tuple[int, int | None]:
        """Read the counts up to the closing brace."""
        start = self._place
        counts = _COUNTS.match(self._pattern, start)
        assert counts is not None
        least_text, comma, most_text = (part.lstrip("0") if part.isdigit() else part for part in counts.groups())
        if max(len(least_text), len(most_text)) > len(str(MAX_REPEAT)):
            self._refuse(f"repeats a part more than {MAX_REPEAT} times", start)
        least = int(least_text or 0)
        most = int(most_text or 0) if counts[3] else None if comma else least
        if max(least, most or 0) > MAX_REPEAT:
            self._refuse(f"repeats a part more than {MAX_REPEAT} times", start)
        if most is not None and most < least:
            self._refuse("has a repeat whose least is above its most", start)
        self._place = counts.end() - 1
        return least, most

    def _set(self, start: int) -> CharacterSet:
        """Read a set after its opening bracket."""
        is_negated = self._peek() == "^"
        self._place += is_negated
        classes = self._dialect.excluded if is_negated else self._dialect.classes
        members: list[CharacterSet] = []
        while self._peek() != "]" or not members:
            low = self._set_member(start, classes)
            place = self._place
            if self._peek() == "-" and self._pattern[place + 1 : place + 2] not in ("]", ""):
                self._place += 1
                high = self._set_member(start, classes)
                if not isinstance(low, str) or not isinstance(high, str) or low > high:
                    self._refuse("has a range whose ends are sets or in the wrong order", place)
                members.append(union([(ord(low), ord(high))]))
            else:
                members.append(_set_of(low))
        self._place += 1
        characters = union(interval for member in members for interval in member)
        return complement(characters) if is_negated else characters

    def _set_member(self, start: int, classes: Mapping[str, CharacterSet]) -> str | CharacterSet:
        place, character = self._place, self._next()
        if not character:
            self._refuse("has a set that is not closed", start)
        return self._escape(place, classes, is_in_set=True) if character == "\\" else character

    def _escape(
        self, start: int, classes: Mapping[str, CharacterSet], *, is_in_set: bool = False
    ) -> str | CharacterSet:
        """Read an escape after its backslash: a character, or the set of a class."""
        character = self._next()
        if character in classes:
            return classes[character]
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character in _HEX_DIGITS:
            return self._code_point(start, _HEX_DIGITS[character])
        if character and character in string.digits:
            return self._octal(start, is_in_set)
        if is_in_set and character == "b":
            return "\b"
        if character in _UNSUPPORTED_ANCHORS and not is_in_set:
            self._refuse(f"has an anchor \\{character}, which is not supported", start)
        if not character or character in string.ascii_letters:
            self._refuse(f"has an unknown escape \\{character}", start)
        return character

    def _code_point(self, start: int, num_digits: int) -> str:
        digits = self._pattern[self._place : self._place + num_digits]
        self._place += num_digits
        if len(digits) < num_digits or not set(digits) <= set(string.hexdigits) or int(digits, 16) > 0x10FFFF:
            self._refuse(f"has an escape that must be the {num_digits} hexadecimal digits of a character", start)
        return chr(int(digits, 16))

    def _octal(self, start: int, is_in_set: bool) -> str:
        """Read a character as octal digits, by the rules of `re`; other digits refer back to a group."""
        first = self._place - 1
        end = first + 1
        while end < first + 3 and self._pattern[end : end + 1] in _OCTAL:
            end += 1
        digits = self._pattern[first:end]
        is_octal = digits[0] == "0" or is_in_set or len(digits) == 3
        if not is_octal or digits[0] not in _OCTAL:
            self._refuse(f"has a back-reference \\{digits[0]}, which is not supported", start)
        if int(digits, 8) > 0o377:
            self._refuse("has an octal escape above \\377", start)
        self._place = end
        return chr(int(digits, 8))

    def _peek(self) -> str:
        return self._pattern[self._place : self._place + 1]

    def _next(self) -> str:
        character = self._peek()
        self._place += len(character)
        return character

    def _refuse(self, rule: str, place: int | None = None) -> NoReturn:
        place = self._place if place is None else place
        raise PatternError(f"{rule} (at position {place}: {shorten(self._pattern[place : place + 20])!r})")


def _set_of(member: str | CharacterSet) -> CharacterSet:
    return union([(ord(member), ord(member))]) if isinstance(member, str) else member
