"""Clients of every kind for a server with the tiny model, and the answers that they must get.

The tiny model is untrained: its tokens hang on every detail of a computation. What a client receives is compared with a
single run of the same request in this process.
"""

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from llada_core import GenerationParams, generate
from llada_core.model.interface import MaskPredictor

PROMPTS = ([1], [1, 2, 3], [7] * 20, list(range(10, 50)))
SETTINGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"temperature": 1.0},
    {"block_length": 8, "cache": "dual", "temperature": 0.7},
    {"block_length": 8, "cache": "prefix", "cache_refresh_interval": 3},
    {"cfg_scale": 1.5},
    {"cfg_scale": 0.5, "block_length": 10, "cache": "dual"},
    {"remasking": "random", "temperature": 1.0},
    {"block_length": 8, "confidence_threshold": 0.01},
)


@dataclass(frozen=True, slots=True)
class Job:
    """The body of a request that generates, and the ids of its single run."""

    body: Mapping[str, Any]
    token_ids: list[int]


def jobs_of(model: MaskPredictor, *, number: int, seed: int) -> list[Job]:
    """Random jobs, computed one by one."""
    draw = random.Random(seed)
    jobs = []
    for index in range(number):
        prompt, settings = draw.choice(PROMPTS), draw.choice(SETTINGS)
        length = draw.choice((8, 24, 40))
        params = GenerationParams(gen_length=length, seed=index, ignore_eos=True, **settings)
        body = {"prompt": prompt, "max_tokens": length, "seed": index, "ignore_eos": True, **settings}
        jobs.append(Job(body, generate(model, [prompt], params)[0].token_ids))
    return jobs


Behaviour = Callable[[Job], Awaitable[None]]


class WrongAnswerError(Exception):
    """A client did not get what it had to get."""


class Clients:
    """Behaviours of clients; each is called with a job and returns once the client has got its answer, or has left.

    Attributes:
        finishing: those that read their answer to the end, and check it.
        leaving: those that go away at some moment.
    """

    def __init__(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """
        Args:
            client: has the server's base URL.
        """
        self._client = client
        self._draw = draw
        self.finishing: dict[str, Behaviour] = {
            "plain": self._plain,
            "choices": self._choices,
            "streamed": self._streamed,
            "denoised": self._denoised,
            "resumed": self._resumed,
        }
        self.leaving: dict[str, Behaviour] = {
            "within the head": lambda job: self._leave(job, sent=20),
            "within the body": lambda job: self._leave(job, sent=-5),
            "at once": self._leave,
            "while an answer is awaited": lambda job: self._leave(job, stream=False, seconds=draw.random() / 5),
            "at the first bytes": lambda job: self._leave(job, reads=1),
            "within a stream": lambda job: self._leave(job, reads=draw.randint(2, 12)),
            "with a reset": lambda job: self._leave(job, reads=draw.randint(1, 6), reset=True),
            "with half a connection": lambda job: self._leave(job, half=True, seconds=draw.random() / 5),
            "within a replay": self._leave_a_replay,
        }

    async def _plain(self, job: Job) -> None:
        answer = await self._client.post("/v1/completions", json={**job.body, "return_token_ids": True})
        _require(answer.status_code, 200)
        _require(answer.json()["choices"][0]["token_ids"], job.token_ids)

    async def _choices(self, job: Job) -> None:
        body = {**job.body, "return_token_ids": True, "n": 3}
        answer = await self._client.post("/v1/completions", json=body)
        _require(answer.status_code, 200)
        _require(answer.json()["choices"][0]["token_ids"], job.token_ids)

    async def _streamed(self, job: Job) -> None:
        ids: list[int] = []
        body = {**job.body, "return_token_ids": True, "stream": True}
        async with self._client.stream("POST", "/v1/completions", json=body) as response:
            _require(response.status_code, 200)
            data = [line[6:] async for line in response.aiter_lines() if line.startswith("data: ")]
        _require(data[-1], "[DONE]")
        for chunk in map(json.loads, data[:-1]):
            ids += chunk["choices"][0]["token_ids"]
        _require(ids, job.token_ids)

    async def _denoised(self, job: Job) -> None:
        async with self._client.stream("POST", "/v1/denoise", json=job.body) as response:
            _require(response.status_code, 200)
            events = [event async for event in _events(response)]
        _require_whole(events, job)

    async def _resumed(self, job: Job) -> None:
        """Read a few events, drop the connection, come back, again and again."""
        events: list[tuple[int, dict[str, Any]]] = []
        while not events or not events[-1][1].keys() & {"finish_reason", "error"}:
            first = not events
            headers = {} if first else {"Last-Event-ID": str(events[-1][0])}
            method, path = ("POST", "/v1/denoise") if first else ("GET", f"/v1/denoise/{events[0][1]['id']}")
            async with self._client.stream(method, path, headers=headers, json=job.body if first else None) as response:
                if response.status_code == 409:  # the server has not yet seen that the last connection is gone
                    await asyncio.sleep(0.02)
                    continue
                _require(response.status_code, 200)
                wanted = self._draw.randint(1, 15)
                async for event in _events(response):
                    events.append(event)
                    wanted -= 1
                    if not wanted:
                        break
        _require([number for number, _ in events], list(range(len(events))))
        _require_whole(events, job)

    async def _leave(
        self,
        job: Job,
        *,
        sent: int | None = None,
        reads: int = 0,
        stream: bool = True,
        seconds: float = 0.0,
        half: bool = False,
        reset: bool = False,
    ) -> None:
        url = self._client.base_url
        body = json.dumps({**job.body, "stream": stream, "n": self._draw.choice((1, 3))}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        async with _connection(url) as (reader, writer):
            writer.write((head + body)[:sent])
            await writer.drain()
            if half:
                writer.write_eof()
            for _ in range(reads):
                await reader.read(200)
            await asyncio.sleep(seconds)
            if reset:
                raw: socket.socket = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _leave_a_replay(self, job: Job) -> None:
        async with self._client.stream("POST", "/v1/denoise", json=job.body) as response:
            _, start = await anext(_events(response))
        for _ in range(2):
            async with self._client.stream("GET", f"/v1/denoise/{start['id']}") as response:
                if response.status_code == 200:
                    await anext(_events(response))


@asynccontextmanager
async def _connection(url: httpx.URL) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _events(response: httpx.Response) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """The number and data of every event of `/v1/denoise`."""
    number = -1
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("data: "):
            yield number, json.loads(line[6:])


def _require_whole(events: list[tuple[int, dict[str, Any]]], job: Job) -> None:
    canvas: list[int] = events[0][1]["token_ids"]
    for _, data in events[1:-1]:
        for change in data.get("changes", ()):
            canvas[change["position"]] = change["token_id"]
    _require(events[-1][1].get("token_ids"), job.token_ids)
    _require(canvas, job.token_ids)


def _require(received: object, expected: object) -> None:
    if received != expected:
        raise WrongAnswerError(f"{received!r:.300} instead of {expected!r:.300}")
