"""One HTTP connection: uvicorn's, with bounds on its time and number, and errors in the server's shape."""

import json
import logging
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.http.api_error import APIError, client_too_slow, not_http, shutting_down
from server.http.browser import BROWSER_HEADERS

# Beyond the limit so many more are answered that there are too many; any further one is closed unanswered.
NUM_REFUSED = 128

# What uvicorn and asyncio log of a client, and can be made to log by anybody as often as they like.
_NOISE = (
    "Invalid HTTP request received.",
    "Unsupported upgrade request.",
    "No supported WebSocket library detected.",
    # The client has left, which is noticed a moment later.
    "socket.send() raised exception.",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections may take.

    Attributes:
        max_connections: the most that are served at a time.
        client_timeout: seconds that a client has for a request's head, for its body, and to read anything of what
            waits for it.
    """

    max_connections: int
    client_timeout: float


class Connection(H11Protocol):
    """A connection that ends when its client is too slow, and that is refused if there are too many."""

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        # The client's task when it was last looked at, and since when; None if the server is at work, or nobody.
        self._task: object = None
        self._since = 0.0
        # Bytes that waited for it then, and how often there was room for more.
        self._unread = self._num_resumed = 0

    @classmethod
    def with_limits(cls, limits: Limits) -> Callable[..., "Connection"]:
        """What uvicorn calls for every new connection."""
        return partial(cls, limits)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        excess = len(self.connections) - self._limits.max_connections
        if excess > NUM_REFUSED:
            transport.abort()
        elif excess > 0:
            self.app_state = {**self.app_state, "is_one_too_many": True}

    def end_if_late(self, now: float) -> None:
        """End the connection if its client has been at one task for too long. To be called about once a second.

        Args:
            now: any clock's seconds.
        """
        task, unread = self._client_task(), self.transport.get_write_buffer_size()
        has_read, self._unread = unread < self._unread, unread
        if task != self._task or has_read:
            self._task, self._since = task, now
        elif task is not None and now - self._since > self._limits.client_timeout:
            if unread:
                # What it has not read by now need not be kept.
                self.transport.abort()
            else:
                self._answer(client_too_slow(self._limits.client_timeout))
                self.transport.close()

    def resume_writing(self) -> None:
        """Called by asyncio when the client has read most of what waited for it, and more may be written."""
        self._num_resumed += 1
        super().resume_writing()

    def shutdown(self) -> None:
        """Called by uvicorn when the server ends: a body that has not arrived by now is not waited for."""
        if self.conn.their_state is h11.SEND_BODY:
            self._answer(shutting_down())
            self.transport.close()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; called by uvicorn while it handles h11's error."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self._answer(not_http(status, str(error)))
        self.transport.close()

    def _client_task(self) -> tuple[str, object] | None:
        """What the client has to do, and for which request."""
        if self.transport.get_write_buffer_size():
            # What a client reads at its own pace may never all be gone: more is written as soon as there is room.
            return "read", self._num_resumed
        if self.conn.their_state is h11.SEND_BODY:
            return "send a body", self.cycle
        has_begun = self.timeout_keep_alive_task is None or self.conn.trailing_data[0]
        return ("send a head", self.cycle) if self.conn.their_state is h11.IDLE and has_begun else None

    def _answer(self, error: APIError) -> None:
        """Send an error, unless an answer has begun, and let the application know that the client is gone."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.transport.is_closing():
            return
        body = json.dumps(error.body).encode()
        headers = {
            **BROWSER_HEADERS,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            "x-request-id": new_request_id(),
        }
        is_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
        response = h11.Response(status_code=error.status, headers=list(headers.items()))
        for part in (response, h11.Data(data=b"" if is_head else body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(part) or b"")


def new_request_id() -> str:
    """The id of a request whose client gave none."""
    return f"req-{secrets.token_hex(12)}"


def is_worth_logging(record: logging.LogRecord) -> bool:
    """A filter for the logs of uvicorn and asyncio: what any stranger can make them say does not count."""
    return not str(record.msg).startswith(_NOISE)
