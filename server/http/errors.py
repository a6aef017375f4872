"""Errors as HTTP: one shape on every route and in every framework path. Status codes live here alone."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llada_core.errors import InvalidParameterError
from server.engine.errors import CacheTooLargeError, EngineStoppedError, QueueFullError
from server.http.api_error import (
    LONGEST_VALUE,
    MAX_BODY_BYTES,
    APIError,
    bad_request,
    body_too_large,
    shortened,
    shutting_down,
)

logger = logging.getLogger(__name__)


def to_api_error(error: Exception, request_id: str) -> APIError:
    """Any exception of a request as the error that its client may see."""
    match error:
        case APIError():
            return error
        case InvalidParameterError():
            return bad_request(str(error), error.field)
        case RequestValidationError():
            return _from_validation(error.errors())
        case QueueFullError():
            return APIError(429, "the queue is full; try again later", type_="rate_limit_error", code="queue_full")
        case CacheTooLargeError():
            return bad_request(
                f"the cache of this request would take {error.needed} bytes; "
                f"all caches together must fit into {error.available} (--kv-cache-memory)",
                "cache",
            )
        case EngineStoppedError():
            return shutting_down()
        case HTTPException():
            return _from_http(error)
    logger.error("request %s failed", request_id, exc_info=error)
    return APIError(500, f"internal error; request id {request_id}", type_="server_error", code="internal_error")


def install_error_handlers(app: FastAPI) -> None:
    """Give every expected error the one shape; `middleware.RequestBoundary` does it for the others."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        api_error = to_api_error(error, request.state.request_id)
        return JSONResponse(api_error.body, api_error.status, headers=api_error.headers)

    kinds = (
        APIError,
        InvalidParameterError,
        RequestValidationError,
        QueueFullError,
        CacheTooLargeError,
        EngineStoppedError,
    )
    for kind in kinds:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, answer)


def _from_http(error: HTTPException) -> APIError:
    if error.status_code == 413:
        return body_too_large(MAX_BODY_BYTES)
    types = {404: ("not_found_error", "route_not_found"), 405: ("invalid_request_error", "method_not_allowed")}
    type_, code = types.get(error.status_code, ("invalid_request_error", "bad_request"))
    if error.status_code == 400 and "parsing the body" in str(error.detail):
        return bad_request(
            "the body is JSON that cannot be read: it is nested too deep, or has a number of too many digits",
            code="invalid_json",
        )
    allow = (error.headers or {}).get("Allow")
    return APIError(error.status_code, str(error.detail), type_=type_, code=code, allow=allow)


def _from_validation(problems: Sequence[Any]) -> APIError:
    """One problem: field, value and rule; rather what is there and wrong than what is missing."""
    problem = next((problem for problem in problems if problem["type"] != "missing"), problems[0])
    if problem["type"] == "json_invalid":
        return bad_request(f"the body is not JSON: {problem['ctx']['error']}", code="invalid_json")
    if isinstance(problem["input"], bytes):
        return bad_request(
            "Content-Type is not JSON's; it must be application/json or absent", code="invalid_content_type"
        )
    places = [str(place) for place in problem["loc"] if place != "body"]
    field = places[0][:LONGEST_VALUE] if places else None
    match problem["type"]:
        case "unsupported_value":
            places.append(problem["ctx"]["name"])
            allowed = ", ".join(repr(one) for one in problem["ctx"]["neutral"])
            message = (
                f"{_path(places)} is {shortened(problem['ctx']['value'])}; it must be "
                f"{f'{allowed} or absent' if allowed else 'absent'}: this server does not support it"
            )
            return bad_request(message, places[0], "unsupported_value")
        case "missing":
            return bad_request(f"{_path(places)} is missing; it is required", field, "missing_required_parameter")
        case "extra_forbidden":
            where = _path([*places[:-1], places[-1] or "''"])
            return bad_request(f"{where} is not a field of this endpoint", field, "unknown_parameter")
        case "string_pattern_mismatch":  # of keys alone
            message = (
                f"{_path(places[:-2])} has the key {shortened(problem['input'])}; keys must be whole numbers from 0"
            )
            return bad_request(message, field)
        case "model_type" | "model_attributes_type" | "dict_type":
            rule = "be a JSON object"
        case _:
            rule = re.sub(r"^(Value error, |(Input|List) should )", "", problem["msg"])
            rule = re.sub(r" after validation, not .*$", "", rule)
    return bad_request(f"{_path(places)} is {shortened(problem['input'])}; it must {rule}", field)


# Branches of unions, by their tags (`server.schemas.base.kind`).
_TAGS = frozenset({"<text>", "<ids>", "<texts>", "<lists of ids>", "<parts>", "<messages>", "<gap>"})


def _path(places: Sequence[str]) -> str:
    """Where in the body; the branch of a union is no place."""
    path = ".".join(place for place in places if place not in _TAGS)
    return path[:LONGEST_VALUE] or "the body"
