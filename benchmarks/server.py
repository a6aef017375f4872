"""Measures the server under load, and the core without it: throughput, latency, start-up, memory.

    python -m benchmarks.server                     # a random model of 134 M parameters; half an hour
    python -m benchmarks.server --size 8M

Servers are real processes. With one model thread, torch has one core and the load generator the other. The CPU time of
the server process is compared with that of the same steps run in this process without HTTP; the wall time is recorded
too. Requests have 160 prompt tokens, 32 response tokens and eight steps.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Annotated, Any

import httpx
import psutil  # type: ignore[import-untyped]
import torch
import typer
from huggingface_hub import save_torch_state_dict

from benchmarks import machine
from benchmarks.inference import SIZES
from llada_core import load_model
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.network import Network
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from server.engine.mailbox import Mailbox
from server.engine.scheduler import Request, Scheduler
from tests.live_server import LiveServer

PROMPT_LENGTH, GEN_LENGTH, STEPS = 160, 32, 8
PLAIN: Mapping[str, Any] = {"max_tokens": GEN_LENGTH, "steps": STEPS, "ignore_eos": True}
CACHED: Mapping[str, Any] = {**PLAIN, "max_tokens": 64, "steps": 32, "cache": "dual"}
MIXED: tuple[Mapping[str, Any], ...] = (
    PLAIN,
    {**PLAIN, "temperature": 0.8},
    {**PLAIN, "cfg_scale": 1.0},
    {**PLAIN, "max_tokens": 64, "cache": "dual"},
    {**PLAIN, "remasking": "entropy", "block_length": 16},
)


@dataclass(frozen=True)
class Load:
    """The measurements of a number of concurrent clients.

    Attributes:
        first_token_s: seconds until the first committed token, if steps are streamed.
    """

    wall_s: float
    server_cpu_s: float
    steps: int
    latencies_s: list[float]
    first_token_s: list[float]

    def figures(self) -> dict[str, float]:
        """Throughput, and percentiles of the latencies."""
        figures = {
            "steps_per_s": self.steps / self.wall_s,
            "steps_per_server_cpu_s": self.steps / self.server_cpu_s,
        }
        for name, values in (("latency", self.latencies_s), ("first_token", self.first_token_s)):
            if len(values) > 1:
                cuts = quantiles(values, n=20)
                figures |= {f"{name}_p50_s": cuts[9], f"{name}_p95_s": cuts[18]}
        return figures


class MeasuredServer(LiveServer):
    """A `llada-server` process measured from outside."""

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def peak_bytes(self) -> int:
        """The largest resident size so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
        raise ValueError("no VmHWM in /proc: measured on Linux only")


def main(
    size: Annotated[str, typer.Option(help=f"Size of the model: {', '.join(SIZES)}.")] = "134M",
    rounds: Annotated[int, typer.Option(help="Number of requests of each concurrent client.", min=1)] = 2,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    output_dir: Annotated[Path, typer.Option(help="Folder for server.json.")] = machine.RESULTS,
    only: Annotated[list[str], typer.Option(help="Measure this part again and keep the others; repeatable.")] = [],  # noqa: B006
) -> None:
    """Print each figure as soon as it is measured and write all of them as JSON."""
    torch.set_num_threads(1)
    description = machine.describe()
    result: dict[str, Any] = {"machine": description, "size": size, "dtype": dtype, "commits": {}}
    if only:
        result |= json.loads((output_dir / "server.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_random_model(SIZES[size], folder)
        for name, part in (
            ("cold_start", cold_start()),
            ("memory", memory(folder, dtype)),
            ("concurrency", concurrency(folder, dtype, rounds)),
            ("overhead", overhead(folder, dtype, rounds)),
            ("caches", caches(folder, dtype, rounds)),
            ("model_threads", model_threads(folder, dtype, rounds)),
        ):
            if only and name not in only:
                continue
            result[name] = dict(part)
            result["commits"][name] = description["commit"]
            typer.echo(f"{name}: {json.dumps(result[name], indent=1)}")
            machine.write("server", result, output_dir)


def save_random_model(shape: Mapping[str, Any], folder: Path) -> None:
    """Save a checkpoint of random weights without a tokenizer; its last three token ids are the special ones."""
    torch.manual_seed(0)
    config = LLaDAConfig(**shape, max_sequence_length=1024)
    folder.mkdir(exist_ok=True)
    save_torch_state_dict(Network(config).state_dict(), folder)
    config.save(folder)
    ids = {
        name: shape["vocab_size"] - 1 - n for n, name in enumerate(("mask_token_id", "eos_token_id", "eot_token_id"))
    }
    (folder / "generation_config.json").write_text(json.dumps(ids))


def cold_start() -> Iterator[tuple[str, float]]:
    """Seconds from the start of the process to the demo model's first answer."""
    for attempt in ("first_answer_s", "first_answer_again_s"):
        started = time.perf_counter()
        with MeasuredServer(threads=2) as server:
            body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}
            httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
            yield attempt, time.perf_counter() - started


def memory(folder: Path, dtype: str) -> Iterator[tuple[str, float]]:
    """The peak memory of a server under load, and its expected parts, in megabytes."""
    code = "import psutil, server.app, llada_core.checkpoint.load; print(psutil.Process().memory_info().rss)"
    imports = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    yield "imports_mb", imports / 1e6
    yield "weights_mb", stored * (1 if dtype == "float32" else 0.5) / 1e6
    with MeasuredServer("--model", str(folder), "--dtype", dtype) as server:
        yield "peak_loaded_mb", server.peak_bytes() / 1e6
        # Many different lengths, to reveal whatever grows with their number.
        bodies = [{**MIXED[n % len(MIXED)], "prompt": prompt_of(n)[: 20 + 11 * n % 139]} for n in range(64)]
        asyncio.run(load(server, bodies, clients=8, rounds=8))
        yield "peak_under_load_mb", server.peak_bytes() / 1e6


def concurrency(folder: Path, dtype: str, rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Mixed settings with more and more clients, each of which streams the denoising steps."""
    with MeasuredServer("--model", str(folder), "--dtype", dtype) as server:
        for clients in (1, 4, 16, 32):
            turns = max(rounds, 8 // clients)
            measured = asyncio.run(load(server, MIXED, clients=clients, rounds=turns, path="/v1/denoise"))
            yield str(clients), measured.figures()


def overhead(folder: Path, dtype: str, rounds: int) -> Iterator[tuple[str, float]]:
    """The cost of 16 streams through HTTP over the same steps in this process, measured in turns; CPU time per step."""
    model = load_model(folder, dtype=dtype)
    with MeasuredServer("--model", str(folder), "--dtype", dtype) as server:
        asyncio.run(load(server, [PLAIN], clients=4, rounds=1))
        core, plain, denoised = [], [], []
        for _ in range(rounds):
            core.append(core_cpu_seconds(model, 16))
            measured = asyncio.run(load(server, [PLAIN], clients=16, rounds=1, stream=True))
            plain.append(measured.server_cpu_s / measured.steps)
            measured = asyncio.run(load(server, [PLAIN], clients=16, rounds=1, path="/v1/denoise"))
            denoised.append(measured.server_cpu_s / measured.steps)
    yield "core_cpu_ms_per_step", min(core) * 1000
    yield "http_stream_cpu_ms_per_step", min(plain) * 1000
    yield "denoise_stream_cpu_ms_per_step", min(denoised) * 1000
    yield "http_share_of_core_throughput", min(core) / min(plain)
    yield "denoise_costs_more", min(denoised) / min(plain) - 1


def core_cpu_seconds(model: Any, clients: int) -> float:
    """The CPU time per step of `clients` canvases that take turns as the server's scheduler decides."""
    scheduler = Scheduler(max_batch_size=32, max_batch_tokens=256, max_queue=256)
    sampler = Sampler(model)
    params = GenerationParams(gen_length=GEN_LENGTH, steps=STEPS, ignore_eos=True)
    for client in range(clients):
        canvas = prepare_response(prompt_of(client), params, Vocabulary.of(model))
        scheduler.add([Request(canvas, Mailbox())])
    steps = 0
    started = time.process_time()
    while turn := scheduler.schedule():
        events = sampler.step([request.canvas for request in turn.requests])
        for request, event in zip(turn.requests, events, strict=True):
            if event.finish_reason is not None:
                scheduler.remove(request)
        scheduler.release(turn.requests)
        steps += len(turn.requests)
    return (time.process_time() - started) / steps


def caches(folder: Path, dtype: str, rounds: int) -> Iterator[tuple[str, float]]:
    """The throughput of 32 clients relative to one, without caches and with the dual cache; CPU time."""
    with MeasuredServer("--model", str(folder), "--dtype", dtype) as server:
        for name, body in (("none", PLAIN), ("dual", CACHED)):
            asyncio.run(load(server, [body], clients=4, rounds=1))
            many = asyncio.run(load(server, [body], clients=32, rounds=rounds)).figures()
            single = asyncio.run(load(server, [body], clients=1, rounds=8 * rounds)).figures()
            yield f"{name}_at_1_steps_per_cpu_s", single["steps_per_server_cpu_s"]
            yield f"{name}_at_32_steps_per_cpu_s", many["steps_per_server_cpu_s"]
            yield f"{name}_32_over_1", many["steps_per_server_cpu_s"] / single["steps_per_server_cpu_s"]


def model_threads(folder: Path, dtype: str, rounds: int) -> Iterator[tuple[str, float]]:
    """Steps per second of one and of two model threads with one core each, and of one with two cores; wall time."""
    settings = {"1": (1, 1), "2": (2, 2), "1_with_2_cores": (1, 2)}
    steps_per_s = {}
    options = ("--model", str(folder), "--dtype", dtype)
    for name, (number, cores) in settings.items():
        with MeasuredServer(*options, "--model-threads", str(number), threads=cores) as server:
            asyncio.run(load(server, [PLAIN], clients=4, rounds=1))
            steps_per_s[name] = asyncio.run(load(server, [PLAIN], clients=8, rounds=2 * rounds)).figures()[
                "steps_per_s"
            ]
        yield f"{name}_steps_per_s", steps_per_s[name]
    yield "2_over_1", steps_per_s["2"] / steps_per_s["1"]


async def load(
    server: MeasuredServer,
    bodies: Sequence[Mapping[str, Any]],
    *,
    clients: int,
    rounds: int,
    stream: bool = False,
    path: str = "/v1/completions",
) -> Load:
    """Keep `clients` requests running at any time; each client sends its next one when it has its answer."""
    latencies, first_tokens = [], []
    num_steps = 0

    async def client(number: int, http: httpx.AsyncClient) -> None:
        nonlocal num_steps
        for turn in range(rounds):
            setting = bodies[(number * rounds + turn) % len(bodies)]
            body = {"prompt": prompt_of(number * rounds + turn), **setting, **({"stream": True} if stream else {})}
            started = time.perf_counter()
            first = None
            async with http.stream("POST", server.url + path, json=body) as answer:
                answer.raise_for_status()
                async for chunk in answer.aiter_raw():
                    if first is None and b"event: step" in chunk:
                        first = time.perf_counter()
            latencies.append(time.perf_counter() - started)
            if first is not None:
                first_tokens.append(first - started)
            num_steps += int(setting["steps"])

    async with httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None)) as http:
        wall, cpu = time.perf_counter(), server.cpu_seconds()
        await asyncio.gather(*(client(number, http) for number in range(clients)))
        return Load(time.perf_counter() - wall, server.cpu_seconds() - cpu, num_steps, latencies, first_tokens)


def prompt_of(number: int) -> list[int]:
    """A different prompt for every request."""
    rng = Random(number)
    return [rng.randrange(200) for _ in range(PROMPT_LENGTH)]


if __name__ == "__main__":
    typer.run(main)
