"""Describes the machine that a figure was measured on; without that, a figure says nothing."""

import json
import os
import platform
import subprocess
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.backends.cpu import Int8Linear, Linear, packed_linear

RESULTS = Path(__file__).parent / "results"


def describe() -> dict[str, Any]:
    """Processor, versions and commit, and what one thread's matrix products reach in each precision."""
    return {
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
        "giga_operations_per_second_and_thread": matrix_products(),
    }


def write(name: str, result: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write a benchmark's result as JSON; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    return file


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = {"avx512f", "avx512_vnni", "avx512_bf16", "amx_tile"} & set(fields.get("flags", "").split())
    family = f"family {fields.get('cpu family', '?')} model {fields.get('model', '?')}"
    return f"{fields.get('model name', platform.processor())}, {family}, {' '.join(sorted(flags))}"


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@torch.inference_mode()
def matrix_products() -> dict[str, int]:
    """The yardstick of all other figures: how fast the hardware multiplies a [192, 1024] by a [1024, 4096] matrix."""
    x, weight = torch.randn(192, 1024), torch.randn(4096, 1024)
    products: dict[str, tuple[Linear, Tensor]] = {
        "float32, torch": (partial(F.linear, weight=weight), x),
        "float32": (packed_linear(len(weight), [weight], torch.float32), x),
        "bfloat16": (packed_linear(len(weight), [weight], torch.bfloat16), x.bfloat16()),
        "int8": (Int8Linear(len(weight), [weight.clone()]), x),
    }
    num_operations = 2 * x.numel() * len(weight)
    return {name: round(num_operations / _seconds(linear, y) / 1e9) for name, (linear, y) in products.items()}


def _seconds(linear: Linear, x: Tensor) -> float:
    times = []
    for _ in range(9):
        started = time.thread_time()
        linear(x)
        times.append(time.thread_time() - started)
    return median(times)
