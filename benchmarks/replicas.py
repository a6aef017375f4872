"""Kills replicas under Ray Serve at random moments, beside clients whose answers are checked.

    python -m benchmarks.replicas                   # 200 times: about half an hour
    python -m benchmarks.replicas --times 5

Two replicas of the demo model serve streams; one gets SIGKILL. Its streams break, those of the other have the tokens of
a single run, and what broke, asked again, has them too. Needs Ray: `make test-cluster` installs it.
"""

import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Annotated

import httpx
import psutil  # type: ignore[import-untyped]
import typer

from benchmarks import machine
from llada_core import GenerationParams, generate, load_model
from llada_core.checkpoint.load import DEMO_FOLDER
from tests.deploy.ray_cluster import name_in, num_running, run_replicas, small_ray
from tests.server.conftest import until

_PROMPT, _LENGTH, _TEMPERATURE = [5, 6, 7], 64, 0.8
_NUM_STREAMS = 6
_MOST_SECONDS = 120


def main(
    times: Annotated[int, typer.Option(help="How often a replica is killed.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Print what was counted, write it to benchmarks/results/replicas.json; exit 1 if anything is not as it must be."""
    params = GenerationParams(gen_length=_LENGTH, temperature=_TEMPERATURE, ignore_eos=True)
    model = load_model(DEMO_FOLDER)
    singly = [generate(model, [_PROMPT], replace(params, seed=seed))[0].token_ids for seed in range(_NUM_STREAMS)]
    draw = random.Random(seed)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    started = time.monotonic()
    with (
        small_ray() as url,
        httpx.Client(base_url=url, timeout=_MOST_SECONDS) as client,
        ThreadPoolExecutor(_NUM_STREAMS) as pool,
    ):
        run_replicas(2, least=2)
        for number in range(times):
            until(lambda: num_running() == 2, _MOST_SECONDS)
            streams = [pool.submit(_stream, client, seed) for seed in range(_NUM_STREAMS)]
            time.sleep(draw.random())
            _kill_one(draw)
            counts["replicas killed"] += 1
            _check([stream.result(_MOST_SECONDS) for stream in streams], singly, client, counts, problems)
            if (number + 1) % 10 == 0:
                typer.echo(f"{number + 1} killed in {time.monotonic() - started:.0f} s: {dict(counts)}")
    result = {"counts": dict(sorted(counts.items())), "problems": problems[:20]}
    typer.echo(json.dumps(result, indent=2))
    machine.write("replicas", {"machine": machine.describe(), **result})
    if problems:
        raise typer.Exit(1)


def _stream(client: httpx.Client, seed: int) -> tuple[str | None, list[int] | None]:
    """The stream's id, unless it broke before; and its tokens, unless it broke at all."""
    stream_id = None
    body = {"prompt": _PROMPT, "max_tokens": _LENGTH, "temperature": _TEMPERATURE, "ignore_eos": True, "seed": seed}
    try:
        with client.stream("POST", "/v1/denoise", json=body) as response:
            if response.status_code != 200:
                return None, None
            for name, data in pairwise(response.iter_lines()):
                if name == "event: start":
                    stream_id = json.loads(data.removeprefix("data: "))["id"]
                elif name == "event: done":
                    return stream_id, json.loads(data.removeprefix("data: "))["token_ids"]
    except httpx.TransportError:
        pass
    return stream_id, None


def _kill_one(draw: random.Random) -> None:
    """Kill one of the processes that hold a replica."""
    children = psutil.Process().children(recursive=True)
    draw.choice([child for child in children if "ServeReplica" in child.name()]).kill()


def _check(
    outcomes: list[tuple[str | None, list[int] | None]],
    singly: list[list[int]],
    client: httpx.Client,
    counts: Counter[str],
    problems: list[str],
) -> None:
    """Count what came whole and what broke; ask again for what broke."""
    whole = {name_in(stream_id) for stream_id, tokens in outcomes if stream_id and tokens}
    broken = {name_in(stream_id) for stream_id, tokens in outcomes if stream_id and not tokens}
    if len(broken) > 1:
        problems.append(f"streams of {len(broken)} replicas broke, and one was killed")
    # A stream of the replica that was killed may have been read to its end before.
    counts["rounds in which each replica had streams"] += bool(whole - broken and broken)
    for seed, (_, tokens) in enumerate(outcomes):
        if tokens is None:
            counts["streams that broke, and were asked for again"] += 1
        else:
            counts["streams read whole"] += 1
        received = tokens or _ask_again(client, seed, problems)
        if received != singly[seed]:
            problems.append(f"seed {seed}: {received!r:.100} instead of {singly[seed]!r:.100}")


def _ask_again(client: httpx.Client, seed: int, problems: list[str]) -> list[int] | None:
    """What a client does whose stream broke. Ray may need a moment to see that a replica is gone."""
    end = time.monotonic() + _MOST_SECONDS
    while time.monotonic() < end:
        _, tokens = _stream(client, seed)
        if tokens is not None:
            return tokens
        time.sleep(0.2)
    problems.append(f"seed {seed}: no answer for {_MOST_SECONDS} s")
    return None


if __name__ == "__main__":
    typer.run(main)
