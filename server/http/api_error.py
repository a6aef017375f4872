"""The error that a client sees, and a constructor for each kind. Status codes live only in `server/http`."""

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

from pydantic import BaseModel

LONGEST_VALUE = 80

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_BYTES_UNDER_WAY = 16 * MAX_BODY_BYTES
"""The most bytes that the bodies of all requests under way may have together."""


class ErrorDetail(BaseModel):
    """The message for people, the kind of error, the field if any, a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error, on every route."""

    error: ErrorDetail


class APIError(Exception):
    """An error as the answer to a request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str,
        param: str | None = None,
        code: str | None = None,
        allow: str | None = None,
        retry_seconds: int = 1,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type_
        self.param = param
        self.code = code
        self.allow = allow
        self.retry_seconds = retry_seconds

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        match self.status:
            case 401:
                return {"WWW-Authenticate": "Bearer"}
            case 405 if self.allow:
                return {"Allow": self.allow}
            case 409 | 429 | 503:
                return {"Retry-After": str(self.retry_seconds)}
        return {}


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> APIError:
    return APIError(400, message, type_="invalid_request_error", param=param, code=code)


def unauthorized() -> APIError:
    return APIError(
        401,
        "Authorization must be 'Bearer KEY' with a key that this server accepts",
        type_="authentication_error",
        code="invalid_api_key",
    )


def host_not_allowed(host: str) -> APIError:
    message = f"Host is {shortened(host)}, which is not this server's name; --allowed-host adds a name"
    return APIError(403, message, type_="permission_error", code="host_not_allowed")


def cross_site(origin: str) -> APIError:
    message = f"the request comes from another site ({shortened(origin)}); --cors-origin allows an origin"
    return APIError(403, message, type_="permission_error", code="origin_not_allowed")


def loading() -> APIError:
    return APIError(503, "the model is being loaded", type_="service_unavailable_error", code="loading")


def model_not_found(name: str, served: str) -> APIError:
    message = f"model is {shortened(name)}; it must be {served!r}, the one this server serves, or absent"
    return APIError(404, message, type_="not_found_error", param="model", code="model_not_found")


def stream_not_found(stream_id: str, param: str | None = None) -> APIError:
    message = (
        f"there is no stream {shortened(stream_id)}; one that is not finished is kept for a minute after its "
        "connection ends, a finished one for ten minutes at most"
    )
    return APIError(404, message, type_="not_found_error", param=param, code="stream_not_found")


def stream_is_read(stream_id: str) -> APIError:
    message = f"the stream {stream_id!r} is still being read by another connection"
    return APIError(409, message, type_="conflict_error", code="stream_is_read")


def cache_too_large(needed: int, available: int, field: str | None) -> APIError:
    message = (
        f"the cache of this request would take {needed} bytes; "
        f"all caches together must fit into {available} (--kv-cache-memory)"
    )
    return bad_request(message, field)


def body_too_large(limit: int) -> APIError:
    return APIError(
        413, f"the body is larger than {limit} bytes", type_="invalid_request_error", code="request_too_large"
    )


def not_http(status: int, problem: str) -> APIError:
    message = f"the request is not valid HTTP: {problem[:LONGEST_VALUE]}"
    return APIError(status, message, type_="invalid_request_error", code="invalid_http")


def client_too_slow(seconds: float) -> APIError:
    message = f"the request did not arrive within {seconds:g} s (--client-timeout)"
    return APIError(408, message, type_="timeout_error", code="request_timeout")


def too_many_connections() -> APIError:
    message = "too many connections are open (--max-connections); try again later"
    return APIError(503, message, type_="service_unavailable_error", code="too_many_connections")


def bodies_too_large(limit: int) -> APIError:
    message = f"the bodies of all requests under way have more than {limit} bytes; try again later"
    return APIError(429, message, type_="rate_limit_error", code="too_many_bytes")


def queue_full(retry_seconds: int = 1) -> APIError:
    return APIError(
        429,
        f"the queue is full; try again in {retry_seconds} s",
        type_="rate_limit_error",
        code="queue_full",
        retry_seconds=retry_seconds,
    )


def client_gone() -> APIError:
    return APIError(
        499, "the client closed the connection", type_="invalid_request_error", code="client_closed_request"
    )


def internal_error(request_id: str) -> APIError:
    return APIError(500, f"internal error; request id {request_id}", type_="server_error", code="internal_error")


def shutting_down() -> APIError:
    return APIError(503, "the server is shutting down", type_="service_unavailable_error", code="shutting_down")


def engine_broken() -> APIError:
    message = "a model thread has ended or hangs; the server must be started again"
    return APIError(503, message, type_="service_unavailable_error", code="engine_broken")


def steps_fail(number: int) -> APIError:
    message = f"the last {number} denoising steps have failed"
    return APIError(503, message, type_="service_unavailable_error", code="steps_fail")


def timed_out(seconds: float) -> APIError:
    return APIError(
        504, f"not finished within {seconds:g} s (--request-timeout)", type_="timeout_error", code="timeout"
    )


class _ShortRepr(reprlib.Repr):
    """A `repr` that reads no more than it shows: a value may be megabytes long, or as deeply nested as JSON allows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = 8
        self.maxother = LONGEST_VALUE

    def repr_str(self, text: str, level: int) -> str:
        return repr(text) if len(text) <= LONGEST_VALUE else f"{repr(text[:LONGEST_VALUE])[:-1]}…"

    def repr_int(self, number: int, level: int) -> str:
        if abs(number) < 10**20:
            return repr(number)
        return f"{float(number):g}" if abs(number) < 10**300 else "a huge number"


_SHORT = _ShortRepr()


def nearest(name: str, choices: Iterable[str]) -> str:
    """A question after the likeliest choice for a misspelt name, for the end of a message; empty if none is close."""
    matches = get_close_matches(name[:LONGEST_VALUE], choices, n=1, cutoff=0.7)
    return f"; did you mean {matches[0]}?" if matches else ""


def shortened(value: object) -> str:
    """The value as text for an error message, shortened if it is long."""
    text = _SHORT.repr(value)
    return text if len(text) <= 2 * LONGEST_VALUE else f"{text[: 2 * LONGEST_VALUE]}…"
