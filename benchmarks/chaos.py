"""Faults of every kind at random moments, beside clients whose answers must stay what they are.

    python -m benchmarks.chaos                     # each fault 200 times: about half an hour
    python -m benchmarks.chaos --times 5           # two minutes

Clients that leave, that are slow or read nothing, time limits, files that run out: at a real `llada-server`. Exceptions
in a step, ones that no `except Exception` catches, steps that hang: at a server in this process. Signals: at processes
of their own, each under load.
"""

import asyncio
import contextlib
import io
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil  # type: ignore[import-untyped]
import typer

from benchmarks import machine
from benchmarks.load import Behaviour, Clients, Job, WrongAnswerError, jobs_of
from benchmarks.soak import TINY
from llada_core import load_model
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.sampler import Sampler
from tests.live_server import LiveServer
from tests.server.conftest import serving

_LONG = {"prompt": [1, 2, 3], "max_tokens": 200, "ignore_eos": True, "stream": True}


class Findings:
    """What was done, and what was wrong."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def require(self, condition: object, problem: str) -> None:
        if not condition:
            self.problems.append(problem)


def main(
    times: Annotated[int, typer.Option(help="How often each fault happens.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    only: Annotated[str, typer.Option(help="A single kind of fault.")] = "",
) -> None:
    """Print what was counted, write it to benchmarks/results/chaos.json; exit 1 if anything is not as it must be."""
    model = load_model(TINY)
    jobs = jobs_of(model, number=32, seed=seed)
    findings, draw = Findings(), random.Random(seed)
    faults: dict[str, Callable[[], None]] = {
        "clients": lambda: asyncio.run(_clients(findings, jobs, times, draw)),
        "deadlines": lambda: asyncio.run(_deadlines(findings, jobs, times)),
        "files": lambda: _files(findings, times, draw),
        "steps": lambda: asyncio.run(_failing_steps(findings, model, jobs, times, draw)),
        "broken": lambda: _broken_engines(findings, model, jobs, times, draw),
        "signals": lambda: _signals(findings, times, draw),
    }
    # What the server logs of faults that are meant is not what this command is about.
    logging.disable(logging.CRITICAL)
    for kind, cause in faults.items():
        if only in ("", kind):
            started = time.monotonic()
            cause()
            typer.echo(f"{kind}: {time.monotonic() - started:.0f} s, {len(findings.problems)} problems so far")
    result = {"times": times, "counts": dict(sorted(findings.counts.items())), "problems": findings.problems[:20]}
    for name, count in sorted(findings.counts.items()):
        typer.echo(f"{count:8d}  {name}")
    for problem in findings.problems[:20]:
        typer.echo(problem)
    if not only:
        machine.write("chaos", {"machine": machine.describe(), **result})
    if findings.problems:
        raise typer.Exit(1)


async def _clients(findings: Findings, jobs: Sequence[Job], times: int, draw: random.Random) -> None:
    """Clients that leave, and such that are slow or read nothing, beside others that read everything."""
    with tempfile.TemporaryFile("w+") as log, _stderr_to(log):
        # Clients that send and leave at once are, for a moment, hundreds of requests from the survivors' own address.
        with LiveServer("--model", TINY, "--client-timeout", "2", "--max-queue", str(10 * times)) as server:
            process = psutil.Process(server.process.pid)
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http, _survivors(findings, http, jobs):
                behaviours = Clients(http, draw)
                for kind, leave in behaviours.leaving.items():

                    async def go(leave: Behaviour = leave) -> None:
                        await leave(draw.choice(jobs))

                    await _repeat(times, go)
                    findings.counts[f"left: {kind}"] += times
                for kind, sent in {
                    "slow head": b"POST /v1/completions HTTP/1.1\r\nHost:",
                    "slow body": b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
                }.items():
                    await _repeat(times, partial(_slow, findings, http, sent, kind), at_once=50)
                await _repeat(times, partial(_reading_nothing, findings, http, process), at_once=20)
            await _require_zero(findings, server.url)
        log.seek(0)
        lines = len(log.readlines())
        findings.counts["lines logged of clients that left, were slow or read nothing"] = lines
        findings.require(lines < 20, f"{lines} lines were logged of clients that left")


async def _slow(findings: Findings, http: httpx.AsyncClient, sent: bytes, kind: str) -> None:
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    findings.require(b"HTTP/1.1 408" in answer, f"{kind}: {answer[:100]!r}")
    findings.counts[kind] += 1


async def _reading_nothing(findings: Findings, http: httpx.AsyncClient, server: psutil.Process) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((http.base_url.host, http.base_url.port))
        raw.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            for _ in range(300):
                raw.sendall(request)
        _, port = raw.getsockname()
        for _ in range(300):
            if port not in {connection.raddr.port for connection in server.net_connections("tcp4") if connection.raddr}:
                findings.counts["reading nothing"] += 1
                return
            await asyncio.sleep(0.2)
    findings.problems.append("a client that reads nothing was kept for a minute")


async def _deadlines(findings: Findings, jobs: Sequence[Job], times: int) -> None:
    """Requests that take longer than they may, beside others that do not."""
    with LiveServer("--model", TINY, "--request-timeout", "0.5", "--max-batch-size", "64") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:

            async def too_long() -> None:
                answer = await http.post("/v1/completions", json={**_LONG, "stream": False, "n": 64})
                findings.require(answer.status_code == 504, f"a request past its time limit: {answer.status_code}")
                findings.counts["time limit"] += 1

            await _repeat(times, too_long, at_once=2)
            await Clients(http, random.Random(0)).finishing["plain"](jobs[0])
            await _require_zero(findings, server.url)


def _files(findings: Findings, times: int, draw: random.Random) -> None:
    """No file is left for connections, for a while; then there are some again."""
    with tempfile.TemporaryFile("w+") as log, _stderr_to(log), LiveServer("--model", TINY) as server:
        url, pid = httpx.URL(server.url), server.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for _ in range(times):
            open_now = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + draw.randint(0, 3), most))
            with contextlib.ExitStack() as stack:
                for _ in range(10):
                    stack.enter_context(socket.create_connection((url.host, url.port)))
                time.sleep(draw.random() / 10)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
            healthy = httpx.get(f"{server.url}/health", timeout=20).status_code == 200
            findings.require(healthy, "not healthy once there were files again")
            findings.counts["no file left"] += 1
        log.seek(0)
        lines = len(log.readlines())
        findings.counts["lines logged of files that ran out"] = lines
        findings.require(lines < 30, f"{lines} lines were logged when files ran out")


class _Faulty(Sampler):
    """A sampler whose steps go wrong at random moments."""

    def __init__(self, model: MaskPredictor, go_wrong: Callable[[], None]) -> None:
        super().__init__(model)
        self._go_wrong = go_wrong

    def step(self, canvases: Sequence[Canvas]) -> list[DenoisingStep]:
        self._go_wrong()
        return super().step(canvases)


async def _failing_steps(
    findings: Findings, model: MaskPredictor, jobs: Sequence[Job], times: int, draw: random.Random
) -> None:
    """Steps raise exceptions; whose own step it was fails, all others go on."""

    def go_wrong() -> None:
        if draw.random() < 0.05:
            findings.counts["exception in a step"] += 1
            raise draw.choice((RuntimeError, ValueError, ZeroDivisionError, MemoryError))("chaos")

    with serving(model, sampler=_Faulty(model, go_wrong)) as url:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            behaviours = Clients(http, draw)

            async def ask() -> None:
                kind = draw.choice(("plain", "streamed", "denoised", "resumed"))
                try:
                    await behaviours.finishing[kind](draw.choice(jobs))
                    findings.counts["answers beside failing steps"] += 1
                except WrongAnswerError as error:
                    findings.require(_is_told(error, "500"), f"beside failing steps: {error}")

            while findings.counts["exception in a step"] < times:
                await _repeat(16, ask, at_once=16)
            await _require_zero(findings, url)


def _broken_engines(
    findings: Findings, model: MaskPredictor, jobs: Sequence[Job], times: int, draw: random.Random
) -> None:
    """A model thread ends or hangs: every request fails at once, and the server says that it is broken."""
    released = threading.Event()
    faults: dict[str, Callable[[], None]] = {
        "an exception that ends a model thread": lambda: _raise(
            draw.choice((SystemExit, KeyboardInterrupt, GeneratorExit, BaseException))
        ),
        "a step that hangs": lambda: _wait(released),
    }
    for name, fault in faults.items():
        for _ in range(times):
            steps_left = draw.randint(0, 60)

            def go_wrong(fault: Callable[[], None] = fault) -> None:
                nonlocal steps_left
                steps_left -= 1
                if steps_left < 0:
                    fault()

            with serving(model, sampler=_Faulty(model, go_wrong), step_timeout=0.2) as url:
                asyncio.run(_until_broken(findings, url, jobs, draw, name))
                released.set()
            released.clear()
            findings.counts[name] += 1


def _raise(kind: type[BaseException]) -> None:
    raise kind("chaos")


def _wait(released: threading.Event) -> None:
    released.wait(20)


async def _until_broken(findings: Findings, url: str, jobs: Sequence[Job], draw: random.Random, name: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        behaviours = Clients(http, draw)

        async def ask() -> None:
            while True:
                try:
                    await behaviours.finishing[draw.choice(("plain", "streamed", "denoised"))](draw.choice(jobs))
                    findings.counts["answers before an engine broke"] += 1
                except WrongAnswerError as error:
                    findings.require(_is_told(error, "503"), f"{name}: {error}")
                    return

        await asyncio.gather(*(ask() for _ in range(4)))
        health = await http.get("/health")
        findings.require(health.status_code == 503, f"{name}: /health is {health.status_code}")


def _is_told(error: WrongAnswerError, status: str) -> bool:
    """Whether the client got an error: as a status, as the last event of a stream, or as that of `/v1/denoise`."""
    return any(text in str(error) for text in (f"{status} instead of 200", "instead of '[DONE]'", "None instead of"))


def _signals(findings: Findings, times: int, draw: random.Random) -> None:
    """SIGTERM under load: requests finish, and the exit status is 0. A second one: it ends at once, with 143."""
    # Every process imports this module once more, under another name, and would say so.
    os.environ["PYTHONWARNINGS"] = "ignore::RuntimeWarning"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.chaos", "server.app", "server.loading"])
    for name, status in {"SIGTERM under load": 0, "a second SIGTERM": 143}.items():
        for _ in range(times):
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(writer,), daemon=True)
            process.start()
            url = reader.recv()
            with (
                httpx.Client(base_url=url, timeout=30) as client,
                client.stream("POST", "/v1/completions", json=_LONG) as answer,
            ):
                lines = answer.iter_lines()
                for _ in range(draw.randint(1, 40)):
                    next(lines)
                assert process.pid is not None
                os.kill(process.pid, signal.SIGTERM)
                if status:
                    time.sleep(draw.random() / 10)
                    os.kill(process.pid, signal.SIGTERM)
                    process.join(3)
                else:
                    findings.require("[DONE]" in list(lines)[-2], f"{name}: the running answer was cut")
                    process.join(30)
            # The request may have ended between the two signals, and the process with it.
            findings.require(process.exitcode in (0, status), f"{name}: exit status {process.exitcode}")
            process.kill()
            process.join()
            findings.counts[name] += 1


def _serve(writer: Any) -> None:
    """Run `llada-server` in this process; send its address."""
    from server import cli

    class Sent(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("Serving"):
                writer.send(text.rsplit(maxsplit=1)[-1])
            return len(text)

    sys.argv = ["llada-server", "--model", TINY, "--port", "0", "--threads", "1", "--log-level", "error"]
    sys.stdout = Sent()
    cli.main()


@contextlib.asynccontextmanager
async def _survivors(findings: Findings, http: httpx.AsyncClient, jobs: Sequence[Job]) -> Any:
    """Clients that read their answers while the block lasts."""
    draw, is_over = random.Random(1), asyncio.Event()
    behaviours = Clients(http, draw)

    async def survive() -> None:
        while not is_over.is_set():
            try:
                await draw.choice(list(behaviours.finishing.values()))(draw.choice(jobs))
                findings.counts["answers beside clients that leave"] += 1
            except (WrongAnswerError, httpx.HTTPError) as error:
                findings.problems.append(f"beside clients that leave: {error!r}")

    tasks = [asyncio.create_task(survive()) for _ in range(4)]
    yield
    is_over.set()
    await asyncio.gather(*tasks)


async def _repeat(times: int, cause: Callable[[], Awaitable[None]], *, at_once: int = 8) -> None:
    left = times

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await cause()

    await asyncio.gather(*(work() for _ in range(at_once)))


async def _require_zero(findings: Findings, url: str) -> None:
    """Nothing may run or wait, and no cache may be held, once all clients are gone."""
    names = ("llada_requests_running", "llada_requests_waiting", "llada_kv_cache_bytes")
    async with httpx.AsyncClient(base_url=url) as http:
        for _ in range(100):
            lines = (await http.get("/metrics")).text.splitlines()
            left = [line for line in lines if line.startswith(names) and not line.endswith(" 0.0")]
            if not left:
                return
            await asyncio.sleep(0.1)
    findings.problems.append(f"left over: {left}")


@contextlib.contextmanager
def _stderr_to(file: Any) -> Any:
    """Let the processes that are started within the block write their logs to `file`."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    typer.run(main)
