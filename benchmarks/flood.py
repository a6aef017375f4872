"""Floods a server with ten times what it can serve; measures who gets in, who does not, and a polite client.

    python -m benchmarks.flood                     # two minutes

Two API keys: the flood has one, a client that sends one request after the other has the other. What a request takes at
the admitted concurrency (all places and the whole queue taken, nobody refused) is measured first.
"""

import asyncio
import json
import time
from collections import defaultdict
from typing import Annotated, Any

import httpx
import numpy as np
import typer

from benchmarks import machine
from benchmarks.soak import TINY
from tests.live_server import LiveServer

_BODY = json.dumps({"prompt": [1, 2, 3], "max_tokens": 64, "ignore_eos": True})
_PLACES, _QUEUE = 8, 8


def main(
    seconds: Annotated[int, typer.Option(help="How long the flood lasts.", min=5)] = 60,
    factor: Annotated[float, typer.Option(help="The flood, as a multiple of what can be served.", min=1)] = 10,
) -> None:
    """Print the figures, and write them to benchmarks/results/flood.json."""
    limits = ("--max-batch-size", str(_PLACES), "--max-queue", str(_QUEUE), "--keep-alive", "2")
    keys = ("--api-key", "greedy", "--api-key", "polite")
    with LiveServer("--model", TINY, *limits, *keys, threads=None) as server:
        result = asyncio.run(flood(httpx.URL(server.url), seconds=seconds, factor=factor))
    typer.echo(json.dumps(result, indent=2))
    machine.write("flood", {"machine": machine.describe(), **result})


async def flood(url: httpx.URL, *, seconds: float, factor: float) -> dict[str, Any]:
    """The figures in milliseconds, by who waited for what."""
    times: dict[str, list[float]] = defaultdict(list)

    async def timed(name: str, method: str, path: str, key: str) -> int:
        started = time.monotonic()
        status = await _ask(url, method, path, key)
        times[f"{name} {status}"].append((time.monotonic() - started) * 1000)
        return status

    async def in_turn(name: str, method: str, path: str, key: str, *, until: float, pause: float = 0.0) -> None:
        while time.monotonic() < until:
            await timed(name, method, path, key)
            await asyncio.sleep(pause)

    await in_turn("polite alone", "POST", "/v1/completions", "polite", until=time.monotonic() + 5)
    start = time.monotonic()
    await asyncio.gather(
        *(in_turn("admitted", "POST", "/v1/completions", "greedy", until=start + 15) for _ in range(_PLACES + _QUEUE))
    )
    throughput = len(times["admitted 200"]) / (time.monotonic() - start)
    end = time.monotonic() + seconds
    others = [
        asyncio.create_task(in_turn("polite", "POST", "/v1/completions", "polite", until=end)),
        asyncio.create_task(in_turn("health", "GET", "/health", "", until=end, pause=0.05)),
    ]
    tasks = set()
    sent, start = 0, time.monotonic()
    while (now := time.monotonic()) < end:
        for _ in range(int((now - start) * throughput * factor) - sent):
            tasks.add(asyncio.create_task(timed("flood", "POST", "/v1/completions", "greedy")))
            sent += 1
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks, *others)
    return {
        "requests_per_second": {"served": round(throughput, 1), "flood": round(sent / seconds, 1)},
        "milliseconds": {
            name: {
                "number": len(values),
                **{f"p{p}": round(float(np.percentile(values, p)), 1) for p in (50, 95, 99)},
            }
            for name, values in times.items()
        },
    }


async def _ask(url: httpx.URL, method: str, path: str, key: str) -> int:
    """The status of an answer, over a connection of its own: the flood must not be held up by its own client."""
    body = _BODY if method == "POST" else ""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"{method} {path} HTTP/1.1\r\nHost: {url.host}\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    answer = await reader.read()
    writer.close()
    return int(answer[9:12])


if __name__ == "__main__":
    typer.run(main)
