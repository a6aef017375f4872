"""Runs a server for a long time under clients of every kind, and checks every answer, its memory and its accounts.

    python -m benchmarks.soak                             # half an hour with one model thread, half with two
    python -m benchmarks.soak --seconds 60 --model-threads 1

Most clients read their answers, which must equal single runs, broken and resumed ones too; the rest leave at any time.
At the end nothing may run or wait, no cache may be held, and memory may not have grown: neither what is in use on the
heap (a leak) nor what the process occupies (which rises to the highest mark ever reached).
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import typer

from benchmarks import machine
from benchmarks.load import Clients, Job, WrongAnswerError, jobs_of
from llada_core import load_model
from tests.live_server import LiveServer

# Moments in seconds, and bytes.
Samples = list[tuple[float, int]]

TINY = str(Path(__file__).parent.parent / "tests/golden/models/tiny-mha")
_STUCK_SECONDS = 60
_LEAVING_SHARE = 0.3
_MEGABYTE = 2**20
_SAMPLE_SECONDS = 5
# Megabytes a minute, in the second half: the first fills caches of compiled kernels. A leak of a few hundred bytes a
# request would be more than the first.
_MAX_GROWTH = {"heap": 0.2, "resident": 0.5}


def main(
    seconds: Annotated[int, typer.Option(help="How long each server runs.", min=10)] = 1800,
    model_threads: Annotated[list[int], typer.Option(help="Model threads of each server.", min=1)] = [1, 2],  # noqa: B006
    clients: Annotated[int, typer.Option(help="Clients at a time.", min=1)] = 24,
    seed: Annotated[int, typer.Option(help="Of jobs and behaviours.")] = 0,
) -> None:
    """Print what was counted, write it to benchmarks/results/soak.json; exit 1 if anything is not as it must be."""
    jobs = jobs_of(load_model(TINY), number=64, seed=seed)
    results = []
    for threads in model_threads:
        with LiveServer("--model", TINY, "--model-threads", str(threads), threads=None) as server:
            result = asyncio.run(soak(server, jobs, seconds=seconds, clients=clients, seed=seed))
        results.append({"model_threads": threads, **result})
        typer.echo(json.dumps(results[-1], indent=2))
    machine.write("soak", {"runs": results})
    if any(problem for result in results for problem in result["problems"]):
        raise typer.Exit(1)


async def soak(server: LiveServer, jobs: list[Job], *, seconds: int, clients: int, seed: int) -> dict[str, Any]:
    """Let clients come and go for so long; returns the counts and what was wrong."""
    done: Counter[str] = Counter()
    problems: list[str] = []
    end = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=_STUCK_SECONDS, limits=limits) as http:

        async def behave(number: int) -> None:
            draw = random.Random(seed * 1000 + number)
            behaviours = Clients(http, draw)
            while time.monotonic() < end:
                kinds = behaviours.leaving if draw.random() < _LEAVING_SHARE else behaviours.finishing
                kind = draw.choice(list(kinds))
                try:
                    await kinds[kind](draw.choice(jobs))
                    done[kind] += 1
                except (WrongAnswerError, httpx.HTTPError) as error:
                    problems.append(f"{kind}: {error!r}")

        sampling = asyncio.create_task(_memory(http, server.process.pid, end))
        await asyncio.gather(*(behave(number) for number in range(clients)))
        memory = await sampling
        for _ in range(100):
            left = await _left_over(http)
            if not left:
                break
            await asyncio.sleep(0.1)
        problems += [f"{name} is {value:g} at the end" for name, value in left.items()]
    growth = {name: round(_slope(samples), 3) for name, samples in memory.items()}
    if seconds >= 600:
        problems += [
            f"{name} memory grows by {growth[name]} MB a minute in the second half"
            for name, most in _MAX_GROWTH.items()
            if growth[name] > most
        ]
    leaving = {kind: count for kind, count in sorted(done.items()) if kind in behaviours_that_leave()}
    return {
        "seconds": seconds,
        "answers_equal_to_single_runs": sum(done.values()) - sum(leaving.values()),
        "clients_that_left": sum(leaving.values()),
        "kinds": dict(sorted(done.items())),
        "memory_mb_each_minute": {
            name: [size // _MEGABYTE for _, size in samples[:: 60 // _SAMPLE_SECONDS]]
            for name, samples in memory.items()
        },
        "memory_growth_mb_per_minute_in_the_second_half": growth,
        "problems": problems[:20],
    }


def behaviours_that_leave() -> frozenset[str]:
    """The kinds of clients that go away."""
    return frozenset(Clients(httpx.AsyncClient(), random.Random()).leaving)


async def _memory(http: httpx.AsyncClient, pid: int, end: float) -> dict[str, Samples]:
    """What is in use on the server's heap, and what the process occupies, in bytes every few seconds."""
    process = psutil.Process(pid)
    samples: dict[str, Samples] = {"heap": [], "resident": []}
    while (now := time.monotonic()) < end:
        (heap_bytes,) = (await _metrics(http, ("llada_heap_bytes",))).values()
        samples["heap"].append((now, int(heap_bytes)))
        samples["resident"].append((now, process.memory_info().rss))
        await asyncio.sleep(_SAMPLE_SECONDS)
    return samples


def _slope(samples: Samples) -> float:
    """Megabytes a minute over the second half, by least squares."""
    seconds, sizes = np.array(samples[len(samples) // 2 :]).T
    return float(np.polyfit(seconds / 60, sizes / _MEGABYTE, 1)[0])


async def _left_over(http: httpx.AsyncClient) -> dict[str, float]:
    """The accounts that are not back at zero."""
    names = ("llada_requests_running", "llada_requests_waiting", "llada_kv_cache_bytes")
    return {name: value for name, value in (await _metrics(http, names)).items() if value}


async def _metrics(http: httpx.AsyncClient, names: Sequence[str]) -> dict[str, float]:
    lines = (await http.get("/metrics")).text.splitlines()
    return {name: float(line.split()[1]) for line in lines for name in names if line.startswith(f"{name} ")}


if __name__ == "__main__":
    typer.run(main)
