"""Schemas of strings and numbers: lengths, patterns, formats and bounds."""

import math
from collections.abc import Mapping
from typing import Any

from llada_core.sampling.constraints.json_string import FORMATS, StringPattern, string_pattern
from llada_core.sampling.constraints.json_text import CHARACTER, STRING, integer_pattern, number_pattern
from llada_core.sampling.constraints.schema_place import Place, is_number, shown
from llada_core.sampling.constraints.syntax import PatternError

MOST_LENGTH = 10_000
"""The largest length of a string or list that a schema may name."""


def length_range(schema: Mapping[str, Any], least_name: str, most_name: str, place: Place) -> tuple[int, int | None]:
    """The least and the most of a length.

    Raises:
        InvalidParameterError: one is not a whole number of at most 10,000; the least is above the most.
    """
    least = _length(schema, least_name, place) or 0
    most = _length(schema, most_name, place)
    if most is not None and least > most:
        raise place.error(f"is {least}; it must be at most {most_name}, which is {most}", least_name)
    return least, most


def _length(schema: Mapping[str, Any], name: str, place: Place) -> int | None:
    value = schema.get(name)
    if value is None:
        return None
    if not is_number(value) or not 0 <= value <= MOST_LENGTH or value != int(value):
        raise place.error(f"is {shown(value)}; it must be a whole number from 0 to {MOST_LENGTH}", name)
    return int(value)


def string_schema(schema: Mapping[str, Any], place: Place) -> str:
    """The pattern of a schema's strings.

    Raises:
        InvalidParameterError: a pattern or format that is not supported, or a length beside one that may break it.
    """
    least, most = length_range(schema, "minLength", "maxLength", place)
    text = _text(schema, place)
    if text is None:
        if not least and most is None:
            return STRING
        return f'"{CHARACTER}{{{least},{"" if most is None else most}}}"'
    if text.shortest < least:
        raise place.error("is not supported beside a pattern or format that allows shorter strings", "minLength")
    if most is not None and (text.longest is None or text.longest > most):
        raise place.error("is not supported beside a pattern or format that allows longer strings", "maxLength")
    return f'"{text.text}"'


def _text(schema: Mapping[str, Any], place: Place) -> StringPattern | None:
    """What `pattern` or `format` demands."""
    format_, expression = schema.get("format"), schema.get("pattern")
    if format_ is not None:
        if expression is not None:
            raise place.error("is not supported beside format", "pattern")
        if not isinstance(format_, str) or format_ not in FORMATS:
            raise place.error(f"is {shown(format_)}; it must be one of {', '.join(FORMATS)}", "format")
        expression = f"^{FORMATS[format_]}$"
    if expression is None:
        return None
    if not isinstance(expression, str):
        raise place.error(f"is {shown(expression)}; it must be a string", "pattern")
    try:
        return string_pattern(expression)
    except PatternError as error:
        raise place.error(f"is {shown(expression)}, which {error}", "pattern") from None


def number_schema(schema: Mapping[str, Any], place: Place, *, is_whole: bool) -> str:
    """The pattern of a schema's numbers.

    Raises:
        InvalidParameterError: a bound that is no number or, of numbers that are not `is_whole`, not whole; no number
            of a size that is written lies between the bounds.
    """
    low, is_low_open = _low(schema, place)
    high, is_high_open = _high(schema, place)
    if is_whole:
        pattern = integer_pattern(
            None if low is None else math.floor(low) + 1 if is_low_open else math.ceil(low),
            None if high is None else math.ceil(high) - 1 if is_high_open else math.floor(high),
        )
    else:
        for bound in (low, high):
            if bound is not None and bound != math.floor(bound):
                raise place.error(f"has the bound {bound}; bounds of numbers other than integers must be whole")
        pattern = number_pattern(
            None if low is None else int(low),
            None if high is None else int(high),
            is_low_open=is_low_open,
            is_high_open=is_high_open,
        )
    if not pattern:
        raise place.error("has bounds without a number between them that can be written")
    return pattern


def _low(schema: Mapping[str, Any], place: Place) -> tuple[float | None, bool]:
    """The lower bound, and whether it is itself excluded."""
    closed, open_ = _bound(schema, "minimum", place), _bound(schema, "exclusiveMinimum", place)
    is_open = open_ is not None and (closed is None or open_ >= closed)
    return (open_ if is_open else closed), is_open


def _high(schema: Mapping[str, Any], place: Place) -> tuple[float | None, bool]:
    """The upper bound, and whether it is itself excluded."""
    closed, open_ = _bound(schema, "maximum", place), _bound(schema, "exclusiveMaximum", place)
    is_open = open_ is not None and (closed is None or open_ <= closed)
    return (open_ if is_open else closed), is_open


def _bound(schema: Mapping[str, Any], name: str, place: Place) -> float | None:
    value = schema.get(name)
    if value is not None and not is_number(value):
        raise place.error(f"is {shown(value)}; it must be a number", name)
    return value
