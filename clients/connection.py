"""What both clients share: the server's address, retries, and how far a stream has been read."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import ServerSentEvent

from clients.errors import APIError, LLaDAError, NoServerError, OverloadedError, error_of
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
        """What is not given comes from `LLADA_SERVER` and `LLADA_API_KEY`.

        Raises:
            ValueError: no header can carry the key.
        """
        server = server or os.environ.get("LLADA_SERVER") or DEFAULT_SERVER
        api_key = api_key or os.environ.get("LLADA_API_KEY") or None
        if api_key is not None and not re.fullmatch(r"[!-~]+", api_key):
            raise ValueError("an API key has only letters, digits and signs of ASCII, without spaces")
        return cls(server.rstrip("/"), api_key, timeout, max_retries)

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
        LLaDAError: something else answers.
    """
    try:
        body: object = response.json()
    except ValueError as error:
        body = response.text
        if response.is_success:
            raise LLaDAError(f"what answers is not a llada-server: {body[:80]!r} is not JSON") from error
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
        data = parsed(sse.data)
        if sse.event == "error":
            self.is_done = True
            raise error_of(data, status=None, request_id=self.stream_id)
        event = event_of(sse.event, data)
        self.last_event_id = sse.id or self.last_event_id
        if isinstance(event, Start):
            self.stream_id = event.id
        self.is_done = isinstance(event, Done)
        return event


@dataclass(slots=True)
class Pieces:
    """The text of a stream of completions or chat, chunk by chunk.

    Attributes:
        on_thinking: called with each piece of thinking, if given.
        has_begun: the server has accepted the request.
        is_done: the last chunk was read.
    """

    on_thinking: Callable[[str], None] | None = None
    has_begun: bool = False
    is_done: bool = False

    def read(self, chunk: str) -> Iterator[str]:
        """The text in a chunk.

        Raises:
            LLaDAError: the server ended the stream with an error, or something else answers.
        """
        self.is_done = self.is_done or chunk == "[DONE]"
        if chunk in ("", "[DONE]"):
            return
        content = parsed(chunk)
        if "error" in content:
            raise error_of(content, status=None, request_id=None)
        for choice in content["choices"]:
            delta = choice.get("delta", {})
            if self.on_thinking is not None and (thinking := delta.get("reasoning_content")):
                self.on_thinking(thinking)
            text = delta.get("content") if "delta" in choice else choice["text"]
            if text:
                yield text

    def require_end(self) -> None:
        """
        Raises:
            LLaDAError: the stream stopped before its end, as a proxy's does that gives up.
        """
        if not self.is_done:
            raise LLaDAError("the stream ended before the whole answer was there")


def parsed(text: str) -> Any:
    """The JSON of an event.

    Raises:
        LLaDAError: it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise LLaDAError(f"what answers is not a llada-server: {text[:80]!r} is not JSON") from error
