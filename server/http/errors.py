"""Turns any exception of a request into an answer of one shape, on every route and in every framework path."""

import logging
from collections.abc import Collection

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llada_core.errors import InvalidParameterError
from server.engine.errors import CacheTooLargeError, EngineBrokenError, EngineStoppedError, QueueFullError
from server.http.api_error import (
    MAX_BODY_BYTES,
    MAX_BYTES_UNDER_WAY,
    APIError,
    bad_request,
    bodies_too_large,
    body_too_large,
    cache_too_large,
    engine_broken,
    internal_error,
    nearest,
    queue_full,
    shutting_down,
)
from server.http.validation import validation_error

logger = logging.getLogger(__name__)

_GZIP_MAGIC = b"\x1f\x8b"


def to_api_error(error: Exception, request_id: str, *, content_type: str = "") -> APIError:
    """The error that the client sees; unexpected exceptions are logged, and the client gets only the request id."""
    match error:
        case APIError():
            return error
        case InvalidParameterError():
            return bad_request(str(error), error.field)
        case RequestValidationError():
            return validation_error(error, content_type=content_type)
        case QueueFullError():
            return queue_full(error.retry_seconds)
        case CacheTooLargeError():
            return cache_too_large(error.needed, error.available, error.field)
        case EngineBrokenError():
            return engine_broken()
        case EngineStoppedError():
            return shutting_down()
        case HTTPException():
            return _from_http(error)
    logger.error("request %s failed", request_id, exc_info=error)
    return internal_error(request_id)


def install_error_handlers(app: FastAPI, *, paths: Collection[str]) -> None:
    """Answer every expected error in the one shape; `middleware.RequestBoundary` answers the unexpected ones.

    Args:
        paths: the routes that an unknown path may have been meant for.
    """

    async def answer(request: Request, error: Exception) -> JSONResponse:
        content_type = request.headers.get("content-type", "")
        api_error = to_api_error(error, request.state.request_id, content_type=content_type)
        if api_error.code == "route_not_found":
            api_error.message += nearest(_path_of(request), paths)
        _forget_frames(error)
        return JSONResponse(api_error.body, api_error.status, headers=api_error.headers)

    for kind in (
        APIError,
        InvalidParameterError,
        RequestValidationError,
        QueueFullError,
        CacheTooLargeError,
        EngineBrokenError,
        EngineStoppedError,
        HTTPException,
    ):
        app.add_exception_handler(kind, answer)


def _forget_frames(error: BaseException | None) -> None:
    """Free the request's body at once: the frames of a traceback hold it, and one of them holds the error again."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _from_http(error: HTTPException) -> APIError:
    if error.status_code == 413:
        return body_too_large(MAX_BODY_BYTES)
    if error.status_code == 429:
        return bodies_too_large(MAX_BYTES_UNDER_WAY)
    types = {404: ("not_found_error", "route_not_found"), 405: ("invalid_request_error", "method_not_allowed")}
    type_, code = types.get(error.status_code, ("invalid_request_error", "bad_request"))
    if isinstance(error.__cause__, APIError):  # of `BoundedRoute`; FastAPI lets no other exception through
        return error.__cause__
    if error.status_code == 400 and "parsing the body" in str(error.detail):
        return _unreadable_body(error.__cause__)
    allow = (error.headers or {}).get("Allow")
    return APIError(error.status_code, str(error.detail), type_=type_, code=code, allow=allow)


def _unreadable_body(cause: BaseException | None) -> APIError:
    """The error for a body that never became JSON."""
    match cause:
        case UnicodeDecodeError() if bytes(cause.object[:2]) == _GZIP_MAGIC:
            problem = "the body is compressed with gzip; it must be sent uncompressed"
        case UnicodeDecodeError():
            problem = f"the body is not UTF-8 text: byte {cause.start} cannot be decoded"
        case _:
            problem = "the body is JSON that cannot be read: it is nested too deep, or has a number of too many digits"
    return bad_request(problem, code="invalid_json")


def _path_of(request: Request) -> str:
    return request.scope["path"].removeprefix(request.scope.get("root_path", ""))
