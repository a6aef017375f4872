"""JSON schema to a regular expression: every text that matches is JSON that the schema accepts.

Only the keywords of a list are taken; any other is refused under its path. A schema is narrowed where a regular
language demands it, never widened: the members of an object come in the declared order, and it has no others; values
that nothing describes, and schemas that refer to themselves, nest to a fixed depth.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints.disjoint import TYPES, Comparison
from llada_core.sampling.constraints.json_text import (
    BLANK,
    STRING,
    either,
    listed,
    literal_pattern,
    object_pattern,
    optional_members,
    value_pattern,
)
from llada_core.sampling.constraints.schema_place import Place, resolved, shown
from llada_core.sampling.constraints.schema_values import length_range, number_schema, string_schema

MOST_CHARACTERS = 65_536
"""The most characters of a pattern."""
MOST_SCHEMAS = 5_000
"""The most schemas within a schema; what a reference stands for counts each time."""
MOST_VALUES = 1_000
"""The most values of an `enum`, and the most properties of an object."""
MOST_DEPTH = 16
"""The most schemas within one another, references included."""
RECURSION_DEPTH = 3
"""How often a reference may lead to itself."""
ANYTHING_DEPTH = 2
"""How deep a value nests that nothing describes."""

# They say nothing about which values are valid.
ANNOTATIONS = frozenset(
    {
        *("$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description"),
        *("discriminator", "example", "examples", "readOnly", "title", "writeOnly"),
    }
)
# Keyword → the type that it is about.
_TYPE_OF_KEYWORD = {
    **dict.fromkeys(("properties", "required", "additionalProperties"), "object"),
    **dict.fromkeys(("items", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
}
# Each of them makes up a schema, with annotations beside it, and the type beside values.
_VALUES = ("const", "enum")
_COMBINATIONS = ("$ref", "anyOf", "oneOf", "allOf")
KEYWORDS = frozenset({"type", *_TYPE_OF_KEYWORD, *_VALUES, *_COMBINATIONS})
"""The keywords that are taken, besides annotations."""


def schema_pattern(schema: Any, path: str, *, blank: str = BLANK) -> str:
    """Translate a JSON schema.

    Args:
        schema: as `json.loads` returns it.
        path: where the user gave it, for errors.
        blank: the pattern of what stands after a comma or a colon.

    Raises:
        InvalidParameterError: a keyword that is not taken, a wrong value of one, a schema that no text satisfies, or
            one that is too large; the field is its path.
    """
    place = Place(path)
    pattern = _Compiler(schema, blank).pattern(schema, place)
    if pattern is None:
        raise place.error("refers to itself without an end")
    return pattern


@dataclass(slots=True)
class _Compiler:
    """Translates the schemas of one document. None stands for the pattern of a schema that never ends."""

    document: Any
    blank: str
    num_schemas: int = field(default=0, init=False)

    def pattern(self, schema: Any, place: Place) -> str | None:
        """The pattern of a schema at its place."""
        self.num_schemas += 1
        if self.num_schemas > MOST_SCHEMAS:
            raise place.error(f"is the {MOST_SCHEMAS + 1}st schema; there must be at most {MOST_SCHEMAS}")
        if place.depth > MOST_DEPTH:
            raise place.error(f"is within more than {MOST_DEPTH} others")
        if schema is True:
            return value_pattern(ANYTHING_DEPTH, self.blank)
        if not isinstance(schema, dict):
            raise place.error(f"is {shown(schema)}; it must be an object")
        keywords = [keyword for keyword in schema if keyword not in ANNOTATIONS]
        for keyword in keywords:
            if keyword not in KEYWORDS:
                raise place.error("is a keyword that is not supported", keyword)
        for whole in (*_VALUES, *_COMBINATIONS):
            if whole in keywords:
                _require_alone(whole, keywords, place)
                return self._values(schema, place) if whole in _VALUES else self._combination(schema, whole, place)
        patterns = [self._of_type(type_, schema, place) for type_ in _types(schema, place)]
        return self._any_of(patterns, place) if keywords else value_pattern(ANYTHING_DEPTH, self.blank)

    def _any_of(self, patterns: Iterable[str | None], place: Place) -> str | None:
        possible = [pattern for pattern in patterns if pattern is not None]
        return _sized(either(possible), place) if possible else None

    def _values(self, schema: Mapping[str, Any], place: Place) -> str | None:
        keyword = "const" if "const" in schema else "enum"
        values = [schema["const"]] if keyword == "const" else schema["enum"]
        if not isinstance(values, list) or not 0 < len(values) <= MOST_VALUES:
            raise place.error(f"must be a list of 1 to {MOST_VALUES} values", keyword)
        types = _types(schema, place)
        valid = [value for value in values if any(TYPES[type_](value) for type_ in types)]
        if not valid:
            raise place.error(f"has no value of the type {' or '.join(types)}", keyword)
        try:
            return self._any_of((literal_pattern(value, self.blank) for value in valid), place)
        except (ValueError, RecursionError) as error:
            if isinstance(error, InvalidParameterError):
                raise
            raise place.error(
                "has a value that is not JSON, half of a surrogate pair, or nested deep", keyword
            ) from None

    def _combination(self, schema: Mapping[str, Any], keyword: str, place: Place) -> str | None:
        schemas = schema[keyword]
        if keyword == "$ref":
            target = resolved(self.document, schemas, place)
            is_endless = place.references.count(schemas) >= RECURSION_DEPTH
            return None if is_endless else self.pattern(target, place.through(schemas))
        if not isinstance(schemas, list) or not schemas:
            raise place.error("must be a list of one or more schemas", keyword)
        if keyword == "allOf" and len(schemas) > 1:
            raise place.error(f"has {len(schemas)} schemas; only one is supported", keyword)
        places = [place.within(keyword, index) for index in range(len(schemas))]
        patterns = [self.pattern(alternative, place_) for alternative, place_ in zip(schemas, places, strict=True)]
        if keyword == "oneOf":
            comparison = Comparison(self.document)
            for index, alternative in enumerate(schemas):
                for other in range(index):
                    if not comparison.are_disjoint(alternative, schemas[other], place):
                        raise places[index].error(
                            f"may overlap with alternative {other}; those of oneOf must differ in their type, in their "
                            "constants, or in the constants of a property that one of them requires"
                        )
        return self._any_of(patterns, place)

    def _of_type(self, type_: str, schema: Mapping[str, Any], place: Place) -> str | None:
        match type_:
            case "object":
                return self._object(schema, place) if "properties" in schema else self._map(schema, place)
            case "array":
                return self._array(schema, place)
            case "string":
                return _sized(string_schema(schema, place), place)
            case "integer" | "number":
                return number_schema(schema, place, is_whole=type_ == "integer")
            case "boolean":
                return "(?:true|false)"
        return "null"

    def _object(self, schema: Mapping[str, Any], place: Place) -> str | None:
        properties, required = schema["properties"], _required(schema, place)
        if not isinstance(properties, dict) or len(properties) > MOST_VALUES:
            raise place.error(f"must be an object of at most {MOST_VALUES} properties", "properties")
        if missing := required - properties.keys():
            raise place.error(f"names {shown(min(missing))}, which is not in properties", "required")
        if not any(schema.get("additionalProperties") is allowed for allowed in (None, False, True)):
            raise place.error("must be false, true or absent beside properties", "additionalProperties")
        values = {name: self.pattern(value, place.within("properties", name)) for name, value in properties.items()}
        if any(values[name] is None for name in required):
            return None
        members = [
            (f"{_name_pattern(name, place)}:{self.blank}{value}", name in required)
            for name, value in values.items()
            if value is not None
        ]
        # Without a required member, each may be the first, with all others after it.
        num_times = 1 if required else (len(members) + 1) / 2
        _require_size(num_times * sum(len(member) for member, _ in members), place)
        return _sized(rf"\{{{optional_members(members, blank=self.blank)}\}}", place)

    def _map(self, schema: Mapping[str, Any], place: Place) -> str:
        """An object of whatever names."""
        if missing := _required(schema, place):
            raise place.error(f"names {shown(min(missing))}, which is not in properties", "required")
        additional = schema.get("additionalProperties", True)
        if additional is True or additional is None:
            return object_pattern(blank=self.blank)
        value = None if additional is False else self.pattern(additional, place.within("additionalProperties"))
        if value is None:
            return r"\{\}"
        return _sized(rf"\{{{listed(f'{STRING}:{self.blank}{value}', blank=self.blank)}\}}", place)

    def _array(self, schema: Mapping[str, Any], place: Place) -> str | None:
        least, most = length_range(schema, "minItems", "maxItems", place)
        item = self.pattern(schema.get("items", True), place.within("items"))
        if item is None:
            return None if least else r"\[\]"
        return _sized(rf"\[{listed(item, blank=self.blank, least=least, most=most)}\]", place)


def _require_alone(whole: str, keywords: Iterable[str], place: Place) -> None:
    for keyword in keywords:
        if keyword != whole and not (keyword == "type" and whole in _VALUES):
            raise place.error(f"is not supported beside {whole}", keyword)


def _types(schema: Mapping[str, Any], place: Place) -> list[str]:
    """The types that a schema names or, if it names none, those that its keywords are about."""
    types = schema.get("type")
    if types is None:
        meant = dict.fromkeys(type_ for keyword, type_ in _TYPE_OF_KEYWORD.items() if keyword in schema)
        return list(meant or TYPES)
    names = types if isinstance(types, list) else [types]
    if not names or not all(isinstance(name, str) and name in TYPES for name in names):
        raise place.error(f"is {shown(types)}; it must be one or several of {', '.join(TYPES)}", "type")
    return list(dict.fromkeys(names))


def _required(schema: Mapping[str, Any], place: Place) -> set[str]:
    names = schema.get("required", [])
    if not isinstance(names, list) or len(names) > MOST_VALUES or not all(isinstance(name, str) for name in names):
        raise place.error(f"must be a list of at most {MOST_VALUES} names", "required")
    return set(names)


def _name_pattern(name: str, place: Place) -> str:
    try:
        return literal_pattern(name)
    except ValueError:
        raise place.error("has a name with half of a surrogate pair", "properties") from None


def _sized(pattern: str, place: Place) -> str:
    _require_size(len(pattern), place)
    return pattern


def _require_size(num_characters: float, place: Place) -> None:
    if num_characters > MOST_CHARACTERS:
        raise place.error(f"is too large: its pattern would have more than {MOST_CHARACTERS} characters")
