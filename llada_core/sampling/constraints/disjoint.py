"""Whether two JSON schemas plainly have no value in common: the rule for the alternatives of `oneOf`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llada_core.sampling.constraints.schema_place import Place, is_number, resolved

MOST_COMPARISONS = 100_000
_MOST_DEPTH = 24


TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}
"""The types of JSON schema, and the values that each of them has."""


@dataclass(slots=True)
class Comparison:
    """Compares schemas of one document, with a bound on all comparisons together."""

    document: Any
    num_left: int = field(default=MOST_COMPARISONS, init=False)

    def are_disjoint(self, one: Any, other: Any, place: Place, depth: int = 0) -> bool:
        """Whether they differ in their types, their constants, or those of a property that one of them requires.

        Raises:
            InvalidParameterError: there is too much to compare.
        """
        one, other = self._followed(one, place), self._followed(other, place)
        if depth > _MOST_DEPTH or not isinstance(one, dict) or not isinstance(other, dict):
            return False
        for first, second in ((one, other), (other, one)):
            for keyword in ("anyOf", "oneOf", "allOf"):
                if keyword in first:
                    return all(self.are_disjoint(part, second, place, depth + 1) for part in first[keyword])
        values, others = _values_of(one), _values_of(other)
        self._count(1 + len(values or ()) + len(others or ()), place)
        if values is not None and others is not None:
            return not values & others
        return not _types_of(one) & _types_of(other) or self._have_disjoint_property(one, other, place, depth)

    def _have_disjoint_property(self, one: dict[str, Any], other: dict[str, Any], place: Place, depth: int) -> bool:
        if one.get("type") != "object" or other.get("type") != "object":
            return False
        properties, others = one.get("properties", {}), other.get("properties", {})
        required = {*one.get("required", ()), *other.get("required", ())}
        return any(
            name in others and self.are_disjoint(properties[name], others[name], place, depth + 1)
            for name in properties
            if name in required
        )

    def _followed(self, schema: Any, place: Place) -> Any:
        """The schema at the end of a chain of references."""
        for _ in range(_MOST_DEPTH):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = resolved(self.document, schema["$ref"], place)
        return schema

    def _count(self, number: int, place: Place) -> None:
        self.num_left -= number
        if self.num_left < 0:
            raise place.error(f"takes more than {MOST_COMPARISONS} comparisons of its alternatives", "oneOf")


def _values_of(schema: Mapping[str, Any]) -> set[Any] | None:
    """The values of an `enum` or `const`; None if there is neither."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else {_key(value) for value in values}


def _types_of(schema: Mapping[str, Any]) -> set[str]:
    """The types of a schema's values; `number` stands for integers too."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return {name for value in values for name, has in TYPES.items() if has(value)}
    types = schema.get("type", list(TYPES))
    names = {types} if isinstance(types, str) else set(types)
    return names | ({"integer"} if "number" in names else set()) | ({"number"} if "integer" in names else set())


def _key(value: Any) -> Any:
    """Equal for values that JSON schema takes for equal: 1 and 1.0, but not 1 and true."""
    match value:
        case dict():
            return frozenset((name, _key(item)) for name, item in value.items())
        case list():
            return tuple(_key(item) for item in value)
    return (isinstance(value, bool), value)
