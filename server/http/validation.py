"""Turns pydantic's errors about a body into the error that the client sees: field, value and rule."""

import re
from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError

from server.http.api_error import LONGEST_VALUE, APIError, bad_request, shortened

# The branches of unions, by their tags (`kind` and `typed` in `server.schemas.base`).
_TAGS = frozenset(
    {
        "<text>",
        "<ids>",
        "<texts>",
        "<lists of ids>",
        "<parts>",
        "<messages>",
        "<gap>",
        "<function>",
        "<boolean>",
        "<object>",
        "<list>",
    }
    | {"<input_text>", "<output_text>", "<input_json>", "<predicate>", "<noul>", "<choice>", "<score>"}
)


def validation_error(error: RequestValidationError, *, content_type: str) -> APIError:
    """The error for one of the problems of a body, preferring a wrong value to a missing field.

    Args:
        content_type: the request's header; empty if it has none.
    """
    problems = error.errors()
    problem = next((problem for problem in problems if problem["type"] != "missing"), problems[0])
    if problem["type"] == "json_invalid":
        return bad_request(
            f"the body is not JSON: {problem['ctx']['error']} {_position(error.body, problem['loc'][1])}",
            code="invalid_json",
        )
    if isinstance(problem["input"], bytes):
        return bad_request(
            f"Content-Type is {shortened(content_type)}; it must be application/json or absent: "
            "with curl add -H 'Content-Type: application/json'",
            code="invalid_content_type",
        )
    places = [str(place) for place in problem["loc"] if place != "body"]
    return _in_the_body(problem, places, field=places[0][:LONGEST_VALUE] if places else None)


def _position(text: str, position: int) -> str:
    """The place of a character in a text, as editors count lines and columns."""
    line_start = text.rfind("\n", 0, position) + 1
    return f"(line {text.count(chr(10), 0, position) + 1}, column {position - line_start + 1})"


def _in_the_body(problem: Any, places: Sequence[str], field: str | None) -> APIError:
    match problem["type"]:
        case "unsupported_value":
            return _unsupported_value(problem["ctx"], places)
        case "missing":
            return bad_request(f"{_path(places)} is missing; it is required", field, "missing_required_parameter")
        case "misspelt_field":
            return _unknown_field([*places, problem["ctx"]["name"]], nearest=problem["ctx"]["nearest"])
        case "extra_forbidden":
            return _unknown_field(places)
        case "string_pattern_mismatch":  # only keys have a pattern
            key = shortened(problem["input"])
            return bad_request(f"{_path(places[:-2])} has the key {key}; keys must be whole numbers from 0", field)
        case "model_type" | "model_attributes_type" | "dict_type":
            rule = "be a JSON object"
        case _:
            rule = re.sub(r"^(Value error, |(Input|List|Dictionary) should )", "", problem["msg"])
            rule = re.sub(r" after validation, not .*$", "", rule)
    return bad_request(f"{_path(places)} is {shortened(problem['input'])}; it must {rule}", field)


def _unknown_field(places: Sequence[str], *, nearest: str = "") -> APIError:
    path = _path([*places[:-1], places[-1] or "''"])
    message = f"{path} is not a field of this endpoint{nearest}"
    return bad_request(message, places[0][:LONGEST_VALUE], "unknown_parameter")


def _unsupported_value(context: Any, places: Sequence[str]) -> APIError:
    """The error for a field of OpenAI or vLLM with a value other than its neutral ones."""
    places = [*places, context["name"]]
    allowed = ", ".join(map(repr, context["neutral"]))
    message = (
        f"{_path(places)} is {context['value']}; it must be "
        f"{f'{allowed} or absent' if allowed else 'absent'}: this server does not support it"
    )
    return bad_request(message, places[0], "unsupported_value")


def _path(places: Sequence[str]) -> str:
    """The place in the body, without the branches of unions."""
    path = ".".join(place for place in places if place not in _TAGS)
    return path[:LONGEST_VALUE] or "the body"
