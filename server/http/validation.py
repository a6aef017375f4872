"""Turns pydantic's errors about a body into the error that the client sees: field, value and rule."""

import re
from collections.abc import Sequence
from typing import Any

from server.http.api_error import LONGEST_VALUE, APIError, bad_request, shortened

# The branches of unions, by their tags (`server.schemas.base.kind`).
_TAGS = frozenset({"<text>", "<ids>", "<texts>", "<lists of ids>", "<parts>", "<messages>", "<gap>"})


def validation_error(problems: Sequence[Any]) -> APIError:
    """The error for one of the problems, preferring a wrong value to a missing field."""
    problem = next((problem for problem in problems if problem["type"] != "missing"), problems[0])
    if problem["type"] == "json_invalid":
        return bad_request(f"the body is not JSON: {problem['ctx']['error']}", code="invalid_json")
    if isinstance(problem["input"], bytes):
        return bad_request(
            "Content-Type is not JSON's; it must be application/json or absent", code="invalid_content_type"
        )
    places = [str(place) for place in problem["loc"] if place != "body"]
    return _in_the_body(problem, places, field=places[0][:LONGEST_VALUE] if places else None)


def _in_the_body(problem: Any, places: Sequence[str], field: str | None) -> APIError:
    match problem["type"]:
        case "unsupported_value":
            return _unsupported_value(problem["ctx"], places)
        case "missing":
            return bad_request(f"{_path(places)} is missing; it is required", field, "missing_required_parameter")
        case "extra_forbidden":
            path = _path([*places[:-1], places[-1] or "''"])
            return bad_request(f"{path} is not a field of this endpoint", field, "unknown_parameter")
        case "string_pattern_mismatch":  # only keys have a pattern
            key = shortened(problem["input"])
            return bad_request(f"{_path(places[:-2])} has the key {key}; keys must be whole numbers from 0", field)
        case "model_type" | "model_attributes_type" | "dict_type":
            rule = "be a JSON object"
        case _:
            rule = re.sub(r"^(Value error, |(Input|List) should )", "", problem["msg"])
            rule = re.sub(r" after validation, not .*$", "", rule)
    return bad_request(f"{_path(places)} is {shortened(problem['input'])}; it must {rule}", field)


def _unsupported_value(context: Any, places: Sequence[str]) -> APIError:
    """The error for a field of OpenAI or vLLM with a value other than its neutral ones."""
    places = [*places, context["name"]]
    allowed = ", ".join(map(repr, context["neutral"]))
    message = (
        f"{_path(places)} is {shortened(context['value'])}; it must be "
        f"{f'{allowed} or absent' if allowed else 'absent'}: this server does not support it"
    )
    return bad_request(message, places[0], "unsupported_value")


def _path(places: Sequence[str]) -> str:
    """The place in the body, without the branches of unions."""
    path = ".".join(place for place in places if place not in _TAGS)
    return path[:LONGEST_VALUE] or "the body"
