"""Places within a JSON schema: their paths for errors, and what references lead to."""

from dataclasses import dataclass
from math import isfinite
from typing import Any
from urllib.parse import unquote

from llada_core.errors import InvalidParameterError, shorten


@dataclass(frozen=True, slots=True)
class Place:
    """Where a schema is within the document.

    Attributes:
        path: where the user gave it.
        depth: the schemas around it, references included.
        references: those that led to it, each time.
    """

    path: str
    depth: int = 0
    references: tuple[str, ...] = ()

    def within(self, *steps: str | int) -> "Place":
        """The place of a schema below a keyword."""
        return Place(".".join([self.path, *map(str, steps)]), self.depth + 1, self.references)

    def through(self, reference: str) -> "Place":
        """The place of the schema that a reference stands for."""
        return Place(f"{self.path}.$ref", self.depth + 1, (*self.references, reference))

    def error(self, problem: str, keyword: str = "") -> InvalidParameterError:
        """The error about a keyword, or about the whole schema."""
        path = shorten(f"{self.path}.{keyword}" if keyword else self.path)
        return InvalidParameterError(f"{path} {problem}", path)


def resolved(document: Any, reference: Any, place: Place) -> Any:
    """The part of a document that a `$ref` points to.

    Raises:
        InvalidParameterError: it points out of the document, or to nothing.
    """
    if not isinstance(reference, str) or (reference != "#" and not reference.startswith("#/")):
        raise place.error(f"is {shown(reference)}; it must point into the same schema, as #/$defs/name does", "$ref")
    part = document
    for step in reference.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(part, dict) and name in part:
            part = part[name]
        elif isinstance(part, list) and name.isdecimal() and len(name) < 9 and int(name) < len(part):
            part = part[int(name)]
        else:
            raise place.error(f"is {shown(reference)}, which is not in the schema", "$ref")
    return part


def shown(value: Any) -> str:
    """A value for an error: what it is, if it is long."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            return f"'{shorten(value)}'"
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
    return shorten(repr(value))


def is_number(value: Any) -> bool:
    """Whether a value is a number of JSON: neither true nor false, nor without an end."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and isfinite(value))
