"""Errors of the client, by what the caller can do about them."""

from collections.abc import Mapping
from typing import Any


class LLaDAError(Exception):
    """Any error of the client."""


class NoServerError(LLaDAError):
    """Nobody answers at the address, or the connection broke and could not be taken up again."""


class APIError(LLaDAError):
    """The server refused or failed.

    Attributes:
        status: of HTTP; None for an error in the middle of a stream.
        code: the server's name for the error, if it has one.
        param: the field that is to blame, if one is.
        request_id: for the server's log.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id


class BadRequestError(APIError):
    """A field is wrong or not supported; `param` names it."""


class AuthenticationError(APIError):
    """The API key is missing or wrong."""


class NotFoundError(APIError):
    """No such route or model, or a stream that is no longer kept."""


class OverloadedError(APIError):
    """The queue is full, or the server is loading or shutting down; tried again as often as the client may."""


class TimedOutError(APIError):
    """The server gave up after its own time limit."""


_BY_STATUS: Mapping[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    404: NotFoundError,
    413: BadRequestError,
    429: OverloadedError,
    503: OverloadedError,
    504: TimedOutError,
}


def error_of(body: object, *, status: int | None, request_id: str | None) -> APIError:
    """The error for an answer's body; one that is not the server's own, as a proxy's, is quoted."""
    error: Any = body.get("error") if isinstance(body, dict) else None
    kind = APIError if status is None else _BY_STATUS.get(status, APIError)
    if not isinstance(error, dict):
        return kind(f"HTTP {status}: {str(body)[:200]}", status=status, request_id=request_id)
    code = error.get("code")
    return kind(
        str(error.get("message")),
        status=status,
        code=None if code is None else str(code),
        param=error.get("param"),
        request_id=request_id,
    )
