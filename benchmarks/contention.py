"""Measures how training and a short answer bear other work on the machine.

    python -m benchmarks.contention               # three minutes

Training is the real `llada-train sft` with its defaults. Two runs of different lengths are compared, so that start and
end cancel out; the figure is samples per CPU second, since other processes take their share of the wall time anyway. An
answer is the demo model's, through a real server with its defaults, in wall time. Each is measured on the idle machine
and beside busy loops, and training also with idle threads that spin, as they do without `OMP_WAIT_POLICY`.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from llada_core import DEMO_FOLDER
from tests.live_server import LiveServer

_BATCH_SIZE = 32
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}


def main(
    loops: Annotated[int, typer.Option(help="Busy loops beside the measured process.", min=0)] = 3,
    steps: Annotated[int, typer.Option(help="Optimizer steps by which the two runs differ.", min=1)] = 60,
    answers: Annotated[int, typer.Option(help="Answers to time.", min=1)] = 20,
) -> None:
    """Print samples per CPU second of training and the median time of an answer, idle and beside busy loops."""
    for policy in ("PASSIVE", "ACTIVE"):
        idle = training_speed(steps, policy)
        with busy(loops):
            loaded = training_speed(steps, policy)
        share = f"{loaded / idle:.0%}"
        typer.echo(f"training, {policy:<8} {idle:8.1f} samples per CPU s idle, {loaded:8.1f} beside {loops}: {share}")
    idle = answer_seconds(answers)
    with busy(loops):
        loaded = answer_seconds(answers)
    typer.echo(
        f"an answer  {idle * 1000:8.1f} ms idle, {loaded * 1000:8.1f} ms beside {loops}: {loaded / idle:.1f} times"
    )


@contextlib.contextmanager
def busy(number: int) -> Iterator[None]:
    """Let so many processes compute without end while the block lasts."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def training_speed(steps: int, policy: str) -> float:
    """Samples per CPU second of `llada-train sft` on the demo model, started while the machine is as it is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data.jsonl"
        rows = ({"prompt": f"What is {n} + 1?", "completion": f"{n} + 1 = {n + 1}. " * 4} for n in range(10, 1000))
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        short, long = (_cpu_seconds(data, folder / str(count), count, policy) for count in (10, 10 + steps))
        return steps * _BATCH_SIZE / (long - short)


def answer_seconds(answers: int) -> float:
    """The median time of an answer of a server that is started while the machine is as it is."""
    body = json.dumps(QUESTION).encode()
    with LiveServer(threads=None) as server:
        request = urllib.request.Request(
            f"{server.url}/v1/chat/completions", body, {"Content-Type": "application/json"}
        )
        times = []
        for _ in range(answers):
            started = time.perf_counter()
            urllib.request.urlopen(request).read()
            times.append(time.perf_counter() - started)
    return median(times)


def _cpu_seconds(data: Path, output: Path, steps: int, policy: str) -> float:
    """The CPU seconds of one training run."""
    before = _cpu_seconds_of_children()
    subprocess.run(
        [
            sys.executable, "-m", "training.cli", "sft", "--model-name-or-path", str(DEMO_FOLDER),
            "--train-data-path", str(data), "--output-dir", str(output), "--max-steps", str(steps),
            "--batch-size", str(_BATCH_SIZE), "--warmup-steps", "1", "--log-steps", str(steps),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_WAIT_POLICY": policy},
    )  # fmt: skip
    return _cpu_seconds_of_children() - before


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    typer.run(main)
