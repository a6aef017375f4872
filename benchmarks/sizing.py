"""How many replicas a number of users needs: a formula, and a simulation of the server's own scheduler.

    python -m benchmarks.sizing                  # LLaDA-8B on a GPU; two minutes
    python -m benchmarks.sizing --measured       # the demo model on this CPU, against a real server; three minutes

Replicas share nothing, so a few of them are simulated with their share of the requests, in the day's busiest hours.
Nothing has run on a GPU: its figures are those of the data sheet and the assumptions in `benchmarks/simulation.py`.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from statistics import quantiles
from typing import Annotated, Any, Self

import httpx
import typer

from benchmarks.simulation import (
    BLOCK,
    DAY,
    GPUS,
    LLADA_8B,
    Cluster,
    Job,
    Pass,
    StepTime,
    arrivals,
    cached_steps,
    daily_rate,
    linear,
    plain_steps,
    roofline,
)
from tests.live_server import LiveServer

_PEAK = DAY / 2
# The hour before is simulated too, so that the queues are those of the time.
_WARM_UP, _BUSIEST = 3600.0, 7200.0
# The server's defaults on a GPU.
_BATCH_SIZE, _BATCH_TOKENS = 32, 8192
_LIMITS = {"max_batch_size": _BATCH_SIZE, "max_batch_tokens": _BATCH_TOKENS, "max_queue": 256}


def replicas_needed(peak_rate: float, seconds_per_request: float, utilisation: float) -> int:
    """The formula: the work that arrives in a second, over the share of a second that a replica should be busy."""
    return math.ceil(peak_rate * seconds_per_request / utilisation)


def seconds_per_request(steps: Sequence[Pass], step_time: StepTime, together: int) -> float:
    """A replica's time for one request, when `together` of them share each step."""
    return sum(step_time([part] * together) for part in steps) / together


def shared_cost(steps: Sequence[Pass], step_time: StepTime) -> float:
    """A replica's seconds for one request when its steps are as full as the server's defaults allow."""
    return seconds_per_request(steps, step_time, min(_BATCH_SIZE, max(1, _BATCH_TOKENS // steps[-1].tokens)))


def percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th percentile."""
    cuts = quantiles(values, n=100)
    return cuts[49], cuts[94], cuts[98]


def main(
    users: Annotated[int, typer.Option(help="Users a day.", min=1)] = 1_000_000,
    requests: Annotated[float, typer.Option(help="Requests of a user a day.")] = 5,
    swing: Annotated[float, typer.Option(help="How far the rate goes above and below its mean.", min=0, max=1)] = 0.8,
    prompt: Annotated[int, typer.Option(help="Mean tokens of a prompt.", min=1)] = 256,
    generated: Annotated[int, typer.Option(help="Tokens of a response.", min=BLOCK)] = 128,
    gpu: Annotated[str, typer.Option(help=f"One of {', '.join(GPUS)}.")] = "H100",
    sample: Annotated[int, typer.Option(help="Replicas that are simulated, with their share.", min=1)] = 4,
    measured: Annotated[bool, typer.Option(help="Compare the simulation with a real server on this CPU.")] = False,
) -> None:
    """Print the table of docs/deployment.md or, with --measured, the check of the simulation."""
    if measured:
        check()
        return
    mean = users * requests / DAY
    typer.echo(
        f"{users:,} users, {requests:g} requests each: {mean:.1f} a second, {mean * (1 + swing):.1f} at the peak"
    )
    typer.echo(
        "| setting | requests a GPU and s | alone, s | busy at the peak | GPUs | p50, s | p95, s | p99, s | refused |"
    )
    typer.echo("|---|---|---|---|---|---|---|---|---|")
    step_time = roofline(LLADA_8B, GPUS[gpu])
    for name, steps_of in settings(generated).items():
        typical = steps_of(prompt + generated)
        cost = shared_cost(typical, step_time)
        alone = seconds_per_request(typical, step_time, 1)
        for busy in (0.6, 0.8):
            number = replicas_needed(mean * (1 + swing), cost, busy)
            share = min(1.0, sample / number)
            jobs = busiest_jobs(mean * share, swing, prompt, generated, steps_of)
            cluster = Cluster(min(sample, number), step_time, **_LIMITS)
            cluster.run(jobs)
            busiest = [served for served in cluster.served if abs(served.job.arrival - _PEAK) < _BUSIEST / 2]
            latencies = " | ".join(f"{value:.1f}" for value in percentiles([served.latency for served in busiest]))
            refused = cluster.num_refused
            typer.echo(f"| {name} | {1 / cost:.1f} | {alone:.1f} | {busy:.0%} | {number} | {latencies} | {refused} |")


def settings(generated: int) -> dict[str, Callable[[int], Sequence[Pass]]]:
    """Setting → the steps of a canvas of so many positions.

    The demo model's passes stand in for the 8B's: `balanced` takes 16 % of those of `exact`, `fast` 17 %
    (docs/speed.md).
    """
    return {
        "exact": lambda length: plain_steps(length, generated),
        "balanced": lambda length: plain_steps(length, round(0.16 * generated)),
        "fast": lambda length: cached_steps(length, generated, 1 / 0.17),
    }


def busiest_jobs(
    mean: float, swing: float, prompt: int, generated: int, steps_of: Callable[[int], Sequence[Pass]]
) -> Iterator[Job]:
    """The requests of the busiest hours; prompts have exponentially distributed lengths, up to eight times the mean."""
    random = Random(0)
    begin = _PEAK - _BUSIEST / 2 - _WARM_UP
    for arrival in arrivals(
        lambda t: daily_rate(mean, swing, t), mean * (1 + swing), begin, begin + _WARM_UP + _BUSIEST, random
    ):
        length = min(1 + int(random.expovariate(1 / prompt)), 8 * prompt)
        yield Job(arrival, steps_of(length + generated))


_CHECK_SECONDS, _CHECK_STEPS = 60.0, 8


def check() -> None:
    """Send the demo model's server requests at random times, and simulate the same with the step times that it had."""
    random = Random(0)
    with LiveServer() as server, httpx.Client(base_url=server.url, timeout=60) as client:
        short, long = (one_at_a_time(client, length) for length in (32, 224))
        per_token = (long - short) / (224 - 32)
        step_time = linear(short - 32 * per_token, per_token)
        typer.echo(f"a step: {short * 1000:.1f} ms at 32 tokens, {long * 1000:.1f} ms at 224")
        rate_at_full = 1 / seconds_per_request(plain_steps(128, _CHECK_STEPS), step_time, 1)
        for busy in (0.4, 0.7):
            rate = busy * rate_at_full
            times = arrivals(lambda _: rate, rate, 0, _CHECK_SECONDS, random)  # noqa: B023
            jobs = [Job(now, plain_steps(random.randrange(64, 193), _CHECK_STEPS)) for now in times]
            with StepClock(client) as clock:
                measured = asyncio.run(ask_all(server.url, jobs))
            simulated = simulate_at(clock.mean_seconds, jobs, step_time)
            typer.echo(f"{len(jobs)} requests, {rate:.2f} a second, a step took {clock.mean_seconds * 1000:.1f} ms")
            for name, values in (("simulated", simulated), ("measured", measured)):
                p50, p95, _ = percentiles(values)
                typer.echo(f"    {name}: p50 {p50:.2f} s, p95 {p95:.2f} s")


def simulate_at(mean_step_seconds: float, jobs: Sequence[Job], step_time: StepTime) -> list[float]:
    """The latencies of `jobs` with steps of this mean, since other work may have slowed the machine down."""
    factor = 1.0
    for _ in range(5):
        cluster = Cluster(1, scaled(step_time, factor), max_batch_size=32, max_batch_tokens=256, max_queue=256)
        cluster.run(jobs)
        factor *= mean_step_seconds / cluster.mean_step_seconds
    return [served.latency for served in cluster.served]


def scaled(step_time: StepTime, factor: float) -> StepTime:
    return lambda passes: factor * step_time(passes)


class StepClock:
    """The server's own mean step time while a block lasts.

    Attributes:
        mean_seconds: set when the block has ended.
    """

    mean_seconds: float

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def __enter__(self) -> Self:
        self._before = self._totals()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, steps = (after - before for after, before in zip(self._totals(), self._before, strict=True))
        self.mean_seconds = seconds / steps

    def _totals(self) -> tuple[float, float]:
        values = dict(line.rsplit(" ", 1) for line in self._client.get("/metrics").text.splitlines() if line[:1] != "#")
        return float(values["llada_step_seconds_sum"]), float(values["llada_step_seconds_count"])


def body_of(length: int) -> dict[str, Any]:
    """A request whose canvas has `length` positions, half of them the response."""
    half = length // 2
    return {"prompt": [5] * (length - half), "max_tokens": half, "steps": _CHECK_STEPS, "ignore_eos": True}


def one_at_a_time(client: httpx.Client, length: int) -> float:
    """The server's own mean step time for one request at a time of this length."""
    with StepClock(client) as clock:
        for _ in range(10):
            client.post("/v1/completions", json=body_of(length)).raise_for_status()
    return clock.mean_seconds


async def ask_all(url: str, jobs: Sequence[Job]) -> list[float]:
    """Send each job at its time; the latencies in seconds."""
    begun = time.perf_counter()
    async with httpx.AsyncClient(base_url=url, timeout=120) as client:

        async def ask(job: Job) -> float:
            await asyncio.sleep(job.arrival - (time.perf_counter() - begun))
            started = time.perf_counter()
            (await client.post("/v1/completions", json=body_of(job.steps[0].tokens))).raise_for_status()
            return time.perf_counter() - started

        return await asyncio.gather(*map(ask, jobs))


if __name__ == "__main__":
    typer.run(main)
