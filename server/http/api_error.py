"""The error that a client sees, and one constructor for each kind: status codes live here alone."""

import reprlib

from pydantic import BaseModel

LONGEST_VALUE = 80

MAX_BODY_BYTES = 4 * 1024 * 1024


class ErrorDetail(BaseModel):
    """What went wrong: in words, its kind, the field, a code for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error, on every route."""

    error: ErrorDetail


class APIError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type_: str,
        param: str | None = None,
        code: str | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.allow = allow
        self.status = status
        self.message = message
        self.type = type_
        self.param = param
        self.code = code

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
                return {"Retry-After": "1"}
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


def model_not_found(name: str, served: str) -> APIError:
    message = f"model is {shortened(name)}; it must be {served!r}, the one this server serves, or absent"
    return APIError(404, message, type_="not_found_error", param="model", code="model_not_found")


def stream_not_found(stream_id: str) -> APIError:
    message = f"there is no stream {stream_id!r}; streams are kept for a minute after their connection ends"
    return APIError(404, message, type_="not_found_error", code="stream_not_found")


def stream_is_read(stream_id: str) -> APIError:
    message = f"the stream {stream_id!r} is still being read by another connection"
    return APIError(409, message, type_="conflict_error", code="stream_is_read")


def body_too_large(limit: int) -> APIError:
    return APIError(
        413, f"the body is larger than {limit} bytes", type_="invalid_request_error", code="request_too_large"
    )


def client_gone() -> APIError:
    return APIError(
        499, "the client closed the connection", type_="invalid_request_error", code="client_closed_request"
    )


def shutting_down() -> APIError:
    return APIError(503, "the server is shutting down", type_="service_unavailable_error", code="shutting_down")


def engine_stopped() -> APIError:
    return APIError(503, "a model thread has ended", type_="service_unavailable_error", code="engine_stopped")


def timed_out(seconds: float) -> APIError:
    return APIError(
        504, f"not finished within {seconds:g} s (--request-timeout)", type_="timeout_error", code="timeout"
    )


class _ShortRepr(reprlib.Repr):
    """`repr` that looks no further than it shows: values may be of megabytes, or nested as deep as JSON may be."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = 8
        self.maxother = LONGEST_VALUE

    def repr_str(self, text: str, level: int) -> str:
        return repr(text) if len(text) <= LONGEST_VALUE else f"{repr(text[:LONGEST_VALUE])[:-1]}…"

    def repr_int(self, number: int, level: int) -> str:
        return (
            repr(number) if abs(number) < 10**20 else f"{float(number):g}" if abs(number) < 10**300 else "a huge number"
        )


_SHORT = _ShortRepr()


def shortened(value: object) -> str:
    """A value as it stands in an error."""
    text = _SHORT.repr(value)
    return text if len(text) <= 2 * LONGEST_VALUE else f"{text[: 2 * LONGEST_VALUE]}…"
