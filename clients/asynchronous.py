"""The client for programs that run on an event loop: `client.py` with `await`."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx
from httpx_sse import EventSource

from clients import calls
from clients.calls import Call, Completion, Fork, Gap, Health, Messages, Model, Prompt, Score
from clients.connection import Connection, Cursor, Pieces, answer_of
from clients.errors import LLaDAError
from clients.events import Event

T = TypeVar("T")


class AsyncLLaDAClient:
    """Asks a `llada-server`, as `LLaDAClient` does.

    Every generating method takes the server's fields by name (docs/api.md): `max_tokens=64`, `preset="fast"`, …
    """

    def __init__(
        self,
        server: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 600.0,
        max_retries: int = 3,
    ) -> None:
        """Prepare to ask; nothing is sent.

        Args:
            server: `LLADA_SERVER`, or this machine's port 8000, if not given.
            api_key: `LLADA_API_KEY`, if not given.
            timeout: seconds without a byte after which the server counts as gone.
            max_retries: how often a request is tried again that was not accepted, or whose stream broke.
        """
        self._connection = Connection.of(server, api_key, timeout, max_retries)
        self._http = httpx.AsyncClient(**self._connection.options())

    async def complete(self, prompt: Prompt, **fields: Any) -> Completion:
        """Continue a text or token ids; with `suffix` fill the gap before it."""
        return await self._send(calls.complete(prompt, fields))

    async def chat(self, messages: Messages, **fields: Any) -> Completion:
        """Answer a chat: its turns, or the text of the only one."""
        return await self._send(calls.chat(messages, fields))

    def stream_complete(self, prompt: Prompt, **fields: Any) -> AsyncGenerator[str]:
        """The same as `complete`, in pieces of text as they become final."""
        return self._stream(calls.complete(prompt, fields))

    def stream_chat(
        self, messages: Messages, *, on_thinking: Callable[[str], None] | None = None, **fields: Any
    ) -> AsyncGenerator[str]:
        """The same as `chat`, in pieces of text as they become final.

        Args:
            on_thinking: called with each piece of thinking, which is no part of the text.
        """
        return self._stream(calls.chat(messages, fields), on_thinking)

    async def denoise(
        self,
        prompt: Prompt | None = None,
        *,
        messages: Messages | None = None,
        canvas: Sequence[Prompt | Gap] | None = None,
        fork: Fork | None = None,
        **fields: Any,
    ) -> AsyncIterator[Event]:
        """The states of a canvas, step by step. A stream that breaks is taken up again where it was.

        Args:
            canvas: texts or token ids, and gaps between them to be filled.
            fork: a frame of another run to go on from.
        """
        body = calls.denoise_body(prompt, messages, canvas, fork, fields)
        cursor, attempt = Cursor(), 0
        while not cursor.is_done:
            retry_after = None
            try:
                async with self._http.stream(**cursor.request(body)) as response:
                    if not response.is_success:
                        await response.aread()
                        retry_after = response.headers.get("retry-after")
                        answer_of(response)
                    async for sse in EventSource(response).aiter_sse():
                        # httpx_sse makes an event without data of the comments that keep a connection alive.
                        if sse.data:
                            yield cursor.read(sse)
                        attempt = 0
                if not cursor.is_done:
                    raise httpx.RemoteProtocolError("the stream ended before its last event")
            except (httpx.TransportError, LLaDAError) as error:
                if cursor.is_done:
                    raise
                await asyncio.sleep(self._connection.delay(attempt, error, retry_after, can_resume=True))
                attempt += 1

    async def infill(self, canvas: Sequence[str | Gap], **fields: Any) -> str:
        """The text of a canvas with its gaps filled."""
        events = [event async for event in self.denoise(canvas=canvas, **fields)]
        return events[-1].text  # type: ignore[union-attr]  # the last event of a stream

    async def score(self, prompt: Prompt, completion: Prompt, **fields: Any) -> Score:
        """Estimate the log-likelihood of a completion after a prompt, from `mc_num` draws."""
        return await self._send(calls.score(prompt, completion, fields))

    async def tokenize(self, text: str) -> list[int]:
        """The token ids of a text."""
        return await self._send(calls.tokenize(text))

    async def token_texts(self, text: str) -> list[tuple[int, str]]:
        """The tokens of a text, each with its own text; half a character becomes U+FFFD."""
        return await self._send(calls.token_texts(text))

    async def models(self) -> list[Model]:
        """What the server serves."""
        return await self._send(calls.models())

    async def health(self) -> Health:
        """Whether the server is `ready`, `alive` but loading its model or shutting down, or `gone`."""
        if await self._answers("/ready"):
            return "ready"
        return "alive" if await self._answers("/health") else "gone"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncLLaDAClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answers(self, path: str) -> bool:
        try:
            return (await self._http.get(path)).is_success
        except httpx.TransportError:
            return False

    async def _send(self, call: Call[T]) -> T:
        attempt = 0
        while True:
            retry_after = None
            try:
                response = await self._http.request(call.method, call.path, json=call.body)
                retry_after = response.headers.get("retry-after")
                return call.parse(answer_of(response))
            except (httpx.TransportError, LLaDAError) as error:
                await asyncio.sleep(self._connection.delay(attempt, error, retry_after))
                attempt += 1

    async def _stream(
        self, call: Call[Completion], on_thinking: Callable[[str], None] | None = None
    ) -> AsyncGenerator[str]:
        body = {**(call.body or {}), "stream": True}
        attempt, pieces = 0, Pieces(on_thinking)
        while not pieces.is_done:
            retry_after = None
            try:
                async with self._http.stream(call.method, call.path, json=body) as response:
                    if not response.is_success:
                        await response.aread()
                        retry_after = response.headers.get("retry-after")
                        answer_of(response)
                    pieces.has_begun = True
                    async for sse in EventSource(response).aiter_sse():
                        for piece in pieces.read(sse.data):
                            yield piece
                pieces.require_end()
            except (httpx.TransportError, LLaDAError) as error:
                if pieces.has_begun and isinstance(error, httpx.TransportError):
                    raise self._connection.gone(error) from error
                if pieces.has_begun:
                    raise
                await asyncio.sleep(self._connection.delay(attempt, error, retry_after))
                attempt += 1
