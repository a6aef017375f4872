"""LLaDA-8B's shape on this machine: loading, seconds per step, and the server's health during a long step.

    python -m benchmarks.large                      # needs 17 GB of disk, and 12 (int8) or 20 (bfloat16) of memory
    python -m benchmarks.large --kinds int8 --lengths 256

The weights are random, in the published layout, and deleted at the end. What does not fit on the machine is skipped.
One real server per kind has one thread; its CPU time is measured from outside. A request's first step covers the whole
canvas and stands for a step without a cache; its later ones recompute a block of 32 positions over the dual cache.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import httpx
import psutil  # type: ignore[import-untyped]
import torch
import typer
from safetensors.torch import save_file

from benchmarks import machine
from benchmarks.inference import SIZES
from benchmarks.server import MeasuredServer
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.kv_cache import KVCache

# What the server is started with for each kind, and the bytes of a weight.
KINDS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "bfloat16": (("--dtype", "bfloat16"), 2),
    "int8": (("--quantization", "int8"), 1),
}
# What LLaDA-8B's config.json has beside the defaults.
LLADA_8B: Mapping[str, Any] = {"mlp_hidden_size": 12288}
BLOCK_LENGTH = 32
CACHED_STEPS = 3

# Memory beside the weights: imports, an embedding that is not quantised, temporary tensors.
_MORE_MEMORY = 2 << 30
_SECONDS_BETWEEN_CHECKS = 0.05


def main(
    kinds: Annotated[list[str], typer.Option(help=f"One of {', '.join(KINDS)}; repeatable.")] = list(KINDS),  # noqa: B006
    lengths: Annotated[list[int], typer.Option(help="Positions of a canvas; repeatable.")] = [256, 1024, 4096],  # noqa: B006
    smoke: Annotated[bool, typer.Option(help="Use a tiny model, to try the benchmark itself.")] = False,
    folder: Annotated[Path, typer.Option(help="Where the weights are written, for the time being.")] = Path("build"),
    output_dir: Annotated[Path, typer.Option(help="Folder for large.json.")] = machine.RESULTS,
) -> None:
    """Print each figure as soon as it is measured and write all of them as JSON."""
    config = LLaDAConfig(**(SIZES["tiny"] if smoke else LLADA_8B))
    num_weights = sum(map(prod, config.tensor_shapes().values()))
    caches = {length: KVCache.num_bytes(config.shape, length, torch.bfloat16) for length in lengths}
    if (missing := missing_disk(2 * num_weights, folder)) > 0:
        typer.echo(f"skipped: {folder} has {missing / 1e9:.1f} GB too little free space for the weights")
        return
    result: dict[str, Any] = {"machine": machine.describe(), "parameters": num_weights, "kinds": {}}
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        save_random_weights(config, Path(scratch))
        for kind in kinds:
            options, bytes_each = KINDS[kind]
            missing = bytes_each * num_weights + _MORE_MEMORY - psutil.virtual_memory().available
            if missing > 0:
                typer.echo(f"{kind} skipped: {missing / 1e9:.1f} GB too little free memory")
                continue
            figures = result["kinds"].setdefault(kind, {})
            for name, value in measure(Path(scratch), options, caches):
                typer.echo(f"{kind}, {name}: {json.dumps(value)}")
                figures[name] = value
                machine.write("large", result, output_dir)


def missing_disk(num_bytes: int, folder: Path) -> int:
    """Return how many bytes more than there are the weights need; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return int(1.05 * num_bytes) - shutil.disk_usage(folder).free


def save_random_weights(config: LLaDAConfig, folder: Path) -> None:
    """Save a checkpoint in the published layout: bfloat16, in shards. All blocks have the same weights."""
    torch.manual_seed(0)
    shapes = config.tensor_shapes()
    shards: dict[str, list[str]] = {}
    for name in shapes:
        # A file per block, and one for each of the large tensors outside of them.
        shards.setdefault(name.split(".blocks.")[1].split(".")[0] if ".blocks." in name else name, []).append(name)
    drawn: dict[tuple[int, ...], torch.Tensor] = {}
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards.values(), start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weights = {}
        for name in names:
            shape = shapes[name]
            if shape not in drawn:
                tensor = torch.randn if len(shape) > 1 else torch.ones
                drawn[shape] = tensor(shape, dtype=torch.bfloat16) * (0.02 if len(shape) > 1 else 1)
            # Tensors of one file may not share memory.
            weights[name] = drawn[shape].clone()
        save_file(weights, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 2 * sum(map(prod, shapes.values()))}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save(folder)
    special = ("mask_token_id", "eos_token_id", "eot_token_id")
    ids = {name: config.vocab_size - 1 - number for number, name in enumerate(special)}
    (folder / "generation_config.json").write_text(json.dumps(ids))


def measure(folder: Path, options: Sequence[str], caches: Mapping[int, int]) -> Iterator[tuple[str, Any]]:
    """Load the model in a server of its own and run a request of each length.

    Args:
        caches: the bytes of a cache of each length; where they are not free, only the exact step is measured.
    """
    started = time.perf_counter()
    slow = ("--threads", "1", "--step-timeout", "7200", "--request-timeout", "7200")
    room = ("--kv-cache-memory", str(max(caches.values())))
    with MeasuredServer("--model", str(folder), *options, *slow, *room, start_seconds=3600) as server:
        yield "load_wall_s", time.perf_counter() - started
        yield "load_cpu_s", server.cpu_seconds()
        yield "load_peak_gb", server.peak_bytes() / 1e9
        steps = {}
        for length, num_bytes in caches.items():
            has_room = num_bytes + _MORE_MEMORY < psutil.virtual_memory().available
            with Watch(server.url) as watch:
                first, *cached = step_seconds(server, length, CACHED_STEPS if has_room else 0)
            steps[str(length)] = {
                "exact_cpu_s": first,
                "cached_cpu_s": mean(cached) if cached else None,
                "slowest_health_ms": 1000 * max(watch.seconds),
                "health_checks": len(watch.seconds),
            }
            yield "steps", steps
        yield "peak_gb", server.peak_bytes() / 1e9


def step_seconds(server: MeasuredServer, length: int, cached_steps: int) -> Iterator[float]:
    """Yield the server's CPU seconds for each step of a request whose canvas has `length` positions."""
    body = {
        "prompt": [5] * (length - BLOCK_LENGTH),
        "max_tokens": BLOCK_LENGTH,
        "steps": 1 + cached_steps,
        "cache": "dual" if cached_steps else "none",
        "ignore_eos": True,
    }
    before = server.cpu_seconds()
    with httpx.stream("POST", f"{server.url}/v1/denoise", json=body, timeout=None) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line == "event: step":
                yield -before + (before := server.cpu_seconds())


class Watch:
    """Asks for the server's health while the block lasts.

    Attributes:
        seconds: how long each answer took.
    """

    def __init__(self, url: str) -> None:
        self.seconds: list[float] = []
        self._url = url
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        with httpx.Client(timeout=None) as client:
            while not self.seconds or not self._ended.wait(_SECONDS_BETWEEN_CHECKS):
                started = time.perf_counter()
                client.get(f"{self._url}/health").raise_for_status()
                self.seconds.append(time.perf_counter() - started)


if __name__ == "__main__":
    typer.run(main)
