"""Answers that end when their client leaves: streams of server-sent events, and slow plain answers."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from server.http.api_error import client_gone
from server.http.errors import to_api_error

T = TypeVar("T")

PING_SECONDS = 10

# Many readers of lines break at these too; within JSON they may be written as escapes.
_ESCAPED_SEPARATORS = str.maketrans({character: f"\\u{ord(character):04x}" for character in "\u0085\u2028\u2029"})


def as_json(data: Any) -> str:
    """JSON as the server writes it, on one line."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPED_SEPARATORS)


def event(data: Any, *, name: str | None = None, id_: int | None = None) -> ServerSentEvent:
    """A server-sent event whose data is JSON, or the text itself."""
    text = data if isinstance(data, str) else as_json(data)
    return ServerSentEvent(text, event=name, id=None if id_ is None else str(id_), sep="\n")


class StreamResponse(EventSourceResponse):
    """A stream of events, whose lines end in LF. An exception after the start becomes its last event.

    A comment keeps the connection alive while no event is ready.
    """

    def __init__(
        self,
        events: AsyncGenerator[ServerSentEvent],
        request: Request,
        *,
        release: Callable[[], None],
        error_event: Callable[[Any], ServerSentEvent] = event,
    ) -> None:
        """
        Args:
            release: called when the response has ended, for whatever reason. The client may leave before the first of
                `events` is requested, and then their generator cannot clean up.
            error_event: turns an error object into the last event; by default the unnamed one of OpenAI's protocol.
        """
        self._events = events
        self._request_id: str = request.state.request_id
        self._release = release
        self._error_event = error_event
        super().__init__(self._guarded(), headers={"X-Accel-Buffering": "no"}, ping=PING_SECONDS, sep="\n")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()

    async def _guarded(self) -> AsyncGenerator[ServerSentEvent]:
        try:
            async with aclosing(self._events) as events:
                async for item in events:
                    yield item
        except Exception as error:  # the status line is sent: only an event can still carry the error
            yield self._error_event(to_api_error(error, self._request_id).body)


async def while_connected(request: Request, answer: Coroutine[Any, Any, T], *, release: Callable[[], None]) -> T:
    """Await an answer; cancel it as soon as the client is gone.

    Args:
        release: called at the end, for whatever reason. An answer cancelled before it began cannot clean up itself.

    Raises:
        APIError: the client left; nobody will read the answer.
    """
    answering = asyncio.ensure_future(answer)
    watching = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise client_gone()
        return answering.result()
    finally:
        watching.cancel()
        answering.cancel()
        release()
        await asyncio.gather(answering, watching, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
