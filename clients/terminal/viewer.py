"""Plays runs in the terminal, while they arrive or from a file."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live

from clients.asynchronous import AsyncLLaDAClient
from clients.errors import LLaDAError
from clients.terminal.canvas_view import screen
from clients.terminal.connecting import Ask
from clients.terminal.playback import FRAME_SECONDS, Playback, Speed
from clients.terminal.recording import Recording

_MOST_TEXTS = 32


def generate(ask: Ask, recordings: Sequence[Recording], console: Console | None, speed: Speed) -> None:
    """Send the requests of these recordings together, and follow them; with a console they are watched."""
    asyncio.run(_generate(ask, recordings, console, speed))


def play(recordings: Sequence[Recording], console: Console, speed: Speed) -> None:
    """Show finished runs."""
    asyncio.run(_play(recordings, console, speed, []))


async def _generate(ask: Ask, recordings: Sequence[Recording], console: Console | None, speed: Speed) -> None:
    async with ask.async_client() as client:
        readers = [asyncio.create_task(_read(client, recording)) for recording in recordings]
        try:
            if console is not None:
                await _play(recordings, console, speed, readers)
            await asyncio.gather(*readers)
        finally:
            # A request is cancelled by closing its connection: leave none open.
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _read(client: AsyncLLaDAClient, recording: Recording) -> None:
    recording.texts = await _given_texts(client, recording.request)
    async for event in client.denoise(**recording.request):
        recording.replay.apply(event)


async def _given_texts(client: AsyncLLaDAClient, request: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the tokens that a request gives, by id; of many it does without: each is a request."""
    given = [*request.get("canvas", []), *(request.get("constraints") or {}).values()]
    texts = [text for text in given if isinstance(text, str)][:_MOST_TEXTS]
    try:
        tokens = [await client.token_texts(text) for text in texts]
    except LLaDAError:
        return {}  # the request itself will say what is wrong
    return {str(token_id): text for part in tokens for token_id, text in part}


async def _play(
    recordings: Sequence[Recording], console: Console, speed: Speed, readers: Sequence["asyncio.Task[None]"]
) -> None:
    playback = Playback(recordings, speed)
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not playback.is_over:
            for reader in readers:
                if reader.done():
                    reader.result()
            if playback.advance(time.monotonic()):
                # The last picture may be higher than the screen: `Live` draws it once, when it ends.
                live.update(screen(playback, console.width, console.height), refresh=not playback.is_over)
            await asyncio.sleep(FRAME_SECONDS)
