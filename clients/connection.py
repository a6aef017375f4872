"""What both clients share: the server's address, retries, and how far a stream has been read."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import ServerSentEvent

from clients.errors import APIError, NoServerError, OverloadedError, error_of
from clients.events import Done, Event, Start, event_of

DEFAULT_SERVER = "http://127.0.0.1:8000"
_LONGEST_DELAY = 30.0
_BUSY_ELSEWHERE = "stream_is_read"


@dataclass(frozen=True, slots=True)
class Connection:
    """A server and how patient to be with it.

    Attributes:
        timeout: seconds without a byte after which the server counts as gone.
        max_retries: how often a request is tried again that was not accepted, or whose stream broke.
    """

    server: str
    api_key: str | None
    timeout: float
    max_retries: int

    @classmethod
    def of(cls, server: str | None, api_key: str | None, timeout: float, max_retries: int) -> "Connection":
        """What is not given comes from `LLADA_SERVER` and `LLADA_API_KEY`."""
        server = server or os.environ.get("LLADA_SERVER") or DEFAULT_SERVER
        return cls(server.rstrip("/"), api_key or os.environ.get("LLADA_API_KEY"), timeout, max_retries)

    def options(self) -> dict[str, Any]:
        """The options of an `httpx` client."""
        headers = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"base_url": self.server, "headers": headers, "timeout": httpx.Timeout(self.timeout, connect=10)}

    def gone(self, error: object) -> NoServerError:
        """The error for a server that does not answer."""
        return NoServerError(
            f"no server answers at {self.server} ({error or 'the connection broke'}); start one with llada-server"
        )

    def delay(
        self, attempt: int, error: Exception, retry_after: str | None = None, *, can_resume: bool = False
    ) -> float:
        """The seconds to wait before the request is tried again.

        Args:
            can_resume: a request that was accepted may be tried again too, since it goes on where it was.

        Raises:
            Exception: the error itself, if trying again is of no use or has been done often enough.
        """
        broken = (httpx.TransportError,) if can_resume else (httpx.ConnectError, httpx.ConnectTimeout)
        is_passing = isinstance(error, (OverloadedError, *broken)) or (
            isinstance(error, APIError) and error.code == _BUSY_ELSEWHERE
        )
        if not is_passing or attempt >= self.max_retries:
            if isinstance(error, httpx.TransportError):
                raise self.gone(error) from error
            raise error
        asked = float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.5 * 2**attempt
        return min(asked, _LONGEST_DELAY)


def answer_of(response: httpx.Response) -> Any:
    """The answer's JSON.

    Raises:
        APIError: the server refused.
    """
    try:
        body: object = response.json()
    except ValueError:
        body = response.text
    if response.is_success:
        return body
    raise error_of(body, status=response.status_code, request_id=response.headers.get("x-request-id"))


@dataclass(slots=True)
class Cursor:
    """How far a stream of `/v1/denoise` has been read."""

    stream_id: str | None = None
    last_event_id: str = ""
    is_done: bool = False

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of the request that begins the stream, or takes it up again."""
        if self.stream_id is None:
            return {"method": "POST", "url": "/v1/denoise", "json": body}
        headers = {"Last-Event-ID": self.last_event_id}
        return {"method": "GET", "url": f"/v1/denoise/{self.stream_id}", "headers": headers}

    def read(self, sse: ServerSentEvent) -> Event:
        """The next event.

        Raises:
            APIError: the server ended the stream with an error.
        """
        data = json.loads(sse.data)
        if sse.event == "error":
            self.is_done = True
            raise error_of(data, status=None, request_id=self.stream_id)
        event = event_of(sse.event, data)
        self.last_event_id = sse.id or self.last_event_id
        if isinstance(event, Start):
            self.stream_id = event.id
        self.is_done = isinstance(event, Done)
        return event


def texts_of(chunk: str) -> Iterator[str]:
    """The text in a chunk of a stream of completions or chat.

    Raises:
        APIError: the server ended the stream with an error.
    """
    if chunk in ("", "[DONE]"):
        return
    content = json.loads(chunk)
    if "error" in content:
        raise error_of(content, status=None, request_id=None)
    for choice in content["choices"]:
        text = choice["delta"].get("content") if "delta" in choice else choice["text"]
        if text:
            yield text
