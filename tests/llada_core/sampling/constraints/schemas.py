"""Random JSON schemas of the supported keywords, values that satisfy them, and texts that match a pattern."""

import random
from re import _constants as sre
from re import _parser
from typing import Any

FORMATS = ("date", "time", "date-time", "uuid", "email", "ipv4")
_NAMES = ("a", "b", "name", 'quo"te', "back\\slash", "žluť", "🎈", "")
_TEXTS = ("", "x", "two words", 'a "quote"', "\\", "line\nend", "ž", "日本語", "🎈🎈", "/", "\u2028")
_PATTERNS = ("^[a-z]{2,5}$", "b", r"^\d+-\w?$", '"', "^(a|bc)*", r"\S$")
# The characters from which a class is filled: of every kind that JSON treats differently.
_CHARACTERS = [*map(chr, range(0x20)), *"aAzZ059 _-+.:@/\"\\'eEuT", "\x7f", "é", "日", "\u2028", "🎈"]


class Schemas:
    """Draws schemas, none of them impossible."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def schema(self, depth: int = 3) -> dict[str, Any]:
        rng = self.rng
        kinds = [self._string, self._integer, self._number, self._values, self._simple]
        if depth:
            kinds += [self._object, self._object, self._array, self._any_of, self._one_of, self._map]
        schema = rng.choice(kinds)(depth - 1)
        if rng.random() < 0.2:
            schema |= {"title": "A title", "description": "Words", "default": None, "examples": [1]}
        return schema

    def _string(self, depth):
        rng = self.rng
        match rng.randrange(4):
            case 0:
                return {"type": "string", "format": rng.choice(FORMATS)}
            case 1:
                return {
                    "type": "string",
                    "pattern": rng.choice(["^[a-z]{2,5}$", "b", r"^\d+-\w?$", '"', "^(a|bc)*", r"\S$"]),
                }
            case 2:
                least = rng.randrange(4)
                return {"type": "string", "minLength": least, "maxLength": least + rng.randrange(6)}
        return {"type": "string"} | ({"minLength": 2} if rng.random() < 0.3 else {})

    def _integer(self, depth):
        return {"type": "integer"} | self._bounds()

    def _number(self, depth):
        return {"type": "number"} | self._bounds()

    def _bounds(self):
        rng = self.rng
        low = rng.choice([-1000, -17, -1, 0, 1, 5, 99, 12345])
        high = low + rng.choice([3, 10, 1234])
        least, most = rng.choice(["minimum", "exclusiveMinimum"]), rng.choice(["maximum", "exclusiveMaximum"])
        return rng.choice([{}, {least: low}, {most: high}, {least: low, most: high}])

    def _values(self, depth):
        values = [*_TEXTS, 0, -5, 2.5, 1e30, True, None, [1, {"a": "b"}], {"x": [], "y": {}}]
        if self.rng.random() < 0.3:
            return {"const": self.rng.choice(values)}
        return {"enum": self.rng.sample(values, 3)}

    def _simple(self, depth):
        return self.rng.choice(
            [
                {"type": "boolean"},
                {"type": "null"},
                {"type": ["integer", "null"]},
                {"type": "object"},
                {"type": "array"},
            ]
        )

    def _object(self, depth):
        rng = self.rng
        names = rng.sample(_NAMES, rng.randrange(5))
        schema = {"type": "object", "properties": {name: self.schema(depth) for name in names}}
        schema["required"] = [name for name in names if rng.random() < 0.5]
        return schema | rng.choice([{}, {"additionalProperties": False}])

    def _map(self, depth):
        return {"type": "object", "additionalProperties": self.schema(min(depth, 1))}

    def _array(self, depth):
        least = self.rng.randrange(3)
        bounds = self.rng.choice(
            [{}, {"minItems": least}, {"minItems": least, "maxItems": least + self.rng.randrange(3)}]
        )
        return {"type": "array", "items": self.schema(min(depth, 1))} | bounds

    def _any_of(self, depth):
        return {"anyOf": [self.schema(depth) for _ in range(self.rng.randrange(1, 4))]}

    def _one_of(self, depth):
        tagged = [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "value": self.schema(min(depth, 1))},
                "required": ["kind"],
            }
            for kind in "abc"
        ]
        return {"oneOf": [*tagged[: self.rng.randrange(1, 4)], {"type": "integer"}]}


def value_of(schema: dict[str, Any], rng: random.Random) -> Any:
    """A value that satisfies a schema of `Schemas` and is within what is written: declared order, no other members."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return value_of(rng.choice(schema[keyword]), rng)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    type_ = schema["type"]
    match rng.choice(type_) if isinstance(type_, list) else type_:
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case "integer":
            return rng.randint(*_whole_bounds(schema))
        case "number":
            low, high = _whole_bounds(schema)
            return rng.choice([rng.randint(low, high), round(rng.uniform(low, high), 3)])
        case "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", schema.get("minItems", 0) + 2)
            items = schema.get("items", {"type": "null"})
            return [value_of(items, rng) for _ in range(rng.randint(least, most))]
        case "object" if "properties" in schema:
            return {
                name: value_of(property_, rng)
                for name, property_ in schema["properties"].items()
                if name in schema["required"] or rng.random() < 0.5
            }
        case "object":
            values = schema.get("additionalProperties", {"type": "null"})
            return {name: value_of(values, rng) for name in rng.sample(_NAMES, 2)}
    return _string_value(schema, rng)


def _whole_bounds(schema):
    low = schema.get(
        "minimum", schema.get("exclusiveMinimum", schema.get("exclusiveMaximum", schema.get("maximum", 0)) - 9)
    )
    low += "exclusiveMinimum" in schema
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 9)) - ("exclusiveMaximum" in schema)
    return low, high


def _string_value(schema, rng):
    samples = {
        "date": "2024-02-29",
        "time": "23:59:59.5+02:00",
        "date-time": "1999-12-31T00:00:00Z",
        "uuid": "12345678-1234-5678-1234-567812345678",
        "email": "first.last+tag@mail.example.org",
        "ipv4": "192.168.0.255",
        "^[a-z]{2,5}$": "abc",
        "b": 'ab"\\b🎈',
        r"^\d+-\w?$": "12-x",
        '"': '\\"',
        "^(a|bc)*": "abcaž",
        r"\S$": "a é",
    }
    for keyword in ("format", "pattern"):
        if keyword in schema:
            return samples[schema[keyword]]
    length = rng.randint(schema.get("minLength", 0), schema.get("maxLength", schema.get("minLength", 0) + 5))
    return "".join(rng.choices('aé日🎈 "\\\n/\t', k=length))


def text_of(pattern: str, rng: random.Random) -> str:
    """A text that matches a pattern, repetitions without an end being short."""
    return _texts_of(_parser.parse(pattern), rng)


def _texts_of(items, rng):
    return "".join(_text_of_item(kind, argument, rng) for kind, argument in items)


def _text_of_item(kind, argument, rng):
    match kind:
        case sre.LITERAL:
            return chr(argument)
        case sre.IN:
            return rng.choice([character for character in _CHARACTERS + _ends(argument) if _is_in(argument, character)])
        case sre.MAX_REPEAT:
            least, most, repeated = argument
            most = min(most, least + rng.choice([0, 1, 3]))
            return "".join(_texts_of(repeated, rng) for _ in range(rng.randint(least, most)))
        case sre.SUBPATTERN:
            return _texts_of(argument[3], rng)
        case sre.BRANCH:
            return _texts_of(rng.choice(argument[1]), rng)
    raise AssertionError(kind)


def _ends(members):
    return [
        chr(code) for kind, pair in members if kind is sre.RANGE for code in pair if not 0xD800 <= code < 0xE000
    ] + [chr(code) for kind, code in members if kind is sre.LITERAL]


def _is_in(members, character):
    is_negated = members[0][0] is sre.NEGATE
    is_found = any(
        (kind is sre.LITERAL and argument == ord(character))
        or (kind is sre.RANGE and argument[0] <= ord(character) <= argument[1])
        for kind, argument in members
    )
    return is_found != is_negated
