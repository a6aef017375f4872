"""Server-sent events, and work that ends with its client."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from server.errors import client_gone, to_api_error


def event(data: Any, *, name: str | None = None, id_: int | None = None) -> ServerSentEvent:
    """One event with a JSON body."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return ServerSentEvent(text, event=name, id=None if id_ is None else str(id_))


def stream_response(
    events: AsyncIterator[ServerSentEvent], request: Request, *, error_name: str | None = None
) -> EventSourceResponse:
    """Stream events; an exception after the start becomes a last event with the error object.

    Args:
        error_name: the event's name; None for the OpenAI protocol, whose clients break on named events.
    """

    async def guarded() -> AsyncIterator[ServerSentEvent]:
        try:
            async for item in events:
                yield item
        except Exception as error:  # the status line is sent; this event is the only place left for the error
            yield event(to_api_error(error, request.state.request_id).body, name=error_name)

    return EventSourceResponse(guarded(), headers={"X-Accel-Buffering": "no"})


async def while_connected(request: Request, work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, and cancel it as soon as the client is gone.

    Raises:
        APIError: the client left; nobody will read an answer.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise client_gone()
        working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
