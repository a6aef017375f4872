"""Simulates replicas of the server: its own scheduler, with steps that last as long as a model of the machine says.

A step lasts as long as a `StepTime` says: on a GPU the longer of its arithmetic and its memory traffic, by the data
sheet's figures and the share of them that is assumed to be reached; on a CPU a line through measured times.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np

from llada_core.sampling.params import GenerationParams
from server.engine.errors import QueueFullError
from server.engine.mailbox import Mailbox
from server.engine.scheduler import Request, Scheduler

DAY = 86_400.0
BLOCK = 32
_PARAMS = GenerationParams()


@dataclass(frozen=True, slots=True)
class Pass:
    """One request's part of a step: the tokens sent through the model, and the positions that they attend to."""

    tokens: int
    context: int


@dataclass(frozen=True, slots=True)
class Job:
    """A request: when it arrives, in seconds, and what each of its steps computes."""

    arrival: float
    steps: Sequence[Pass]


@dataclass(slots=True)
class Served:
    """What became of a job, in seconds since the start; None while it has not happened."""

    job: Job
    first_step: float | None = None
    finished: float | None = None

    @property
    def latency(self) -> float:
        """Seconds from the arrival to the last step."""
        assert self.finished is not None
        return self.finished - self.job.arrival


StepTime = Callable[[Sequence[Pass]], float]


@dataclass(frozen=True)
class Shape:
    """The sizes of a LLaDA model with as many key/value heads as heads, and a head of its own (not tied)."""

    layers: int
    width: int
    mlp_width: int
    vocabulary: int

    @property
    def block_weights(self) -> int:
        """The weights that every token of a step goes through: all but embeddings and head."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.mlp_width)

    @property
    def head_weights(self) -> int:
        """The weights that only the masked positions of the active block go through."""
        return self.vocabulary * self.width

    @property
    def cache_bytes(self) -> int:
        """The keys and values of one position, in bytes, with two bytes a number."""
        return 2 * self.layers * self.width * 2


@dataclass(frozen=True)
class GPU:
    """A data sheet's figures for bfloat16 without sparsity: operations and bytes a second, bytes of memory."""

    operations: float
    bandwidth: float
    memory: float


LLADA_8B = Shape(layers=32, width=4096, mlp_width=12288, vocabulary=126464)
GPUS = {
    "H100": GPU(989e12, 3.35e12, 80e9),
    "A100": GPU(312e12, 2.04e12, 80e9),
    "L40S": GPU(362e12, 0.864e12, 48e9),
}
# Assumed: what well-tuned bfloat16 inference reaches of the data sheet's figures, and what a step costs besides.
REACHED_OPERATIONS, REACHED_BANDWIDTH, OVERHEAD_SECONDS = 0.5, 0.7, 0.004


def roofline(shape: Shape, gpu: GPU) -> StepTime:
    """A step's time on a GPU: the longer of arithmetic and memory traffic, and the overhead."""

    def seconds(passes: Sequence[Pass]) -> float:
        tokens = sum(part.tokens for part in passes)
        attention = sum(4 * part.tokens * part.context for part in passes) * shape.layers * shape.width
        operations = 2 * tokens * shape.block_weights + attention + 2 * len(passes) * BLOCK * shape.head_weights
        transferred = 2 * (shape.block_weights + shape.head_weights)
        arithmetic = operations / (gpu.operations * REACHED_OPERATIONS)
        return max(arithmetic, transferred / (gpu.bandwidth * REACHED_BANDWIDTH)) + OVERHEAD_SECONDS

    return seconds


def linear(seconds_per_step: float, seconds_per_token: float) -> StepTime:
    """A step's time on a CPU, which a few hundred tokens keep busy."""
    return lambda passes: seconds_per_step + seconds_per_token * sum(part.tokens for part in passes)


def plain_steps(length: int, number: int) -> tuple[Pass, ...]:
    """Steps without a cache: each computes the whole canvas."""
    return (Pass(length, length),) * number


def cached_steps(length: int, generated: int, tokens_per_step: float) -> tuple[Pass, ...]:
    """Steps with the dual cache: the first of a block computes the whole canvas, the others the block."""
    steps = max(1, round(BLOCK / tokens_per_step))
    return (Pass(length, length), *(Pass(BLOCK, length),) * (steps - 1)) * math.ceil(generated / BLOCK)


def daily_rate(mean: float, swing: float, second: float) -> float:
    """Requests a second at a second of the day: a wave around the mean, highest in the middle of the day."""
    return mean * (1 - swing * math.cos(2 * math.pi * second / DAY))


def arrivals(
    rate: Callable[[float], float], highest: float, begin: float, end: float, random: Random
) -> Iterator[float]:
    """The times of a Poisson process whose rate changes, by thinning one of the highest rate."""
    now = begin
    while (now := now + random.expovariate(highest)) < end:
        if random.random() * highest < rate(now):
            yield now


@dataclass
class Replica:
    """A server: its scheduler, and the batch that it computes until `busy_until`."""

    scheduler: Scheduler
    batch: list[Request] = field(default_factory=list)
    busy_seconds: float = 0.0
    num_steps: int = 0

    @property
    def load(self) -> int:
        return self.scheduler.num_running + self.scheduler.num_waiting


class Cluster:
    """Replicas behind a proxy that asks the one with the fewest requests.

    Attributes:
        served: every job that was accepted.
        num_refused: the jobs that found the queue full.
    """

    def __init__(self, num_replicas: int, step_time: StepTime, **limits: int) -> None:
        """
        Args:
            limits: of each replica's `Scheduler`.
        """
        self.served: list[Served] = []
        self.num_refused = 0
        self._replicas = [Replica(Scheduler(**limits)) for _ in range(num_replicas)]
        self._step_time = step_time
        self._ends: list[tuple[float, int]] = []
        self._progress: dict[Request, tuple[Served, int]] = {}

    def run(self, jobs: Iterable[Job]) -> None:
        """Serve jobs, which come in the order of their arrival, to the last step."""
        for job in jobs:
            self._advance(job.arrival)
            self._add(job)
        self._advance(math.inf)

    def utilisation(self, seconds: float) -> float:
        """The share of `seconds` that a replica computed."""
        return sum(replica.busy_seconds for replica in self._replicas) / (len(self._replicas) * seconds)

    @property
    def mean_step_seconds(self) -> float:
        """The mean duration of a step."""
        steps = sum(replica.num_steps for replica in self._replicas)
        return sum(replica.busy_seconds for replica in self._replicas) / steps

    def _add(self, job: Job) -> None:
        number = min(range(len(self._replicas)), key=lambda n: self._replicas[n].load)
        replica = self._replicas[number]
        request = _request()
        served = Served(job)
        self._progress[request] = (served, 0)
        _set_pass(request, job.steps[0])
        try:
            replica.scheduler.add([request])
        except QueueFullError:
            del self._progress[request]
            self.num_refused += 1
            return
        self.served.append(served)
        if not replica.batch:
            self._start(number, job.arrival)

    def _advance(self, until: float) -> None:
        """End the steps that are over by then, and start those that follow."""
        while self._ends and self._ends[0][0] <= until:
            now, number = heapq.heappop(self._ends)
            replica = self._replicas[number]
            for request in replica.batch:
                self._end_step(replica, request, now)
            replica.scheduler.release(replica.batch)
            self._start(number, now)

    def _end_step(self, replica: Replica, request: Request, now: float) -> None:
        served, done = self._progress[request]
        done += 1
        if served.first_step is None:
            served.first_step = now
        if done < len(served.job.steps):
            self._progress[request] = (served, done)
            _set_pass(request, served.job.steps[done])
        else:
            served.finished = now
            replica.scheduler.remove(request)
            del self._progress[request]

    def _start(self, number: int, now: float) -> None:
        replica = self._replicas[number]
        turn = replica.scheduler.schedule()
        replica.batch = turn.requests if turn else []
        if replica.batch:
            progress = (self._progress[request] for request in replica.batch)
            seconds = self._step_time([served.job.steps[done] for served, done in progress])
            replica.busy_seconds += seconds
            replica.num_steps += 1
            heapq.heappush(self._ends, (now + seconds, number))


def _request() -> Request:
    """A request for the scheduler, which reads of a canvas only the following."""
    canvas: Any = SimpleNamespace(
        window=np.arange(0), params=_PARAMS, finish_reason=None, caches=None, restorations=list
    )
    return Request(canvas, Mailbox())


def _set_pass(request: Request, part: Pass) -> None:
    request.canvas.window = np.arange(part.tokens)  # type: ignore[misc]
