"""How much of a small model's step is not arithmetic: operations that are begun, Python, the sampler.

    python -m benchmarks.dispatch                   # a minute

A step of the 8 M model is compared with that of a model of as many layers and heads whose widths and vocabulary are so
small that its arithmetic takes no time. Both run the same operations, in turns. CPU time of one thread.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer

from benchmarks import machine
from benchmarks.inference import SIZES
from benchmarks.lengths import KINDS, random_model
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler

SMALL: Mapping[str, Any] = SIZES["8M"]
EMPTY: Mapping[str, Any] = {**SMALL, "d_model": 32, "mlp_hidden_size": 32, "vocab_size": 64}
PROMPT_LENGTH, GEN_LENGTH, BLOCK_LENGTH = 64, 128, 32
NUM_ROUNDS = 3


def main(
    output_dir: Annotated[Path, typer.Option(help="Folder for dispatch.json.")] = machine.RESULTS,
) -> None:
    """Print the table and write it as JSON."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine.describe(), "kinds": {kind: measure(kind) for kind in KINDS}}
    for kind, steps in result["kinds"].items():
        for name, figures in steps.items():
            share = figures["empty_ms"] / figures["step_ms"]
            typer.echo(f"{kind}, {name}: {figures['step_ms']:.2f} ms, {share:.0%} of it without arithmetic")
    machine.write("dispatch", result, output_dir)


def measure(kind: str) -> dict[str, dict[str, float]]:
    """Return the median times of steps over the whole canvas and of cached steps, for both models."""
    models = {"step_ms": random_model(SMALL, kind), "empty_ms": random_model(EMPTY, kind)}
    times: dict[str, dict[str, list[float]]] = {name: {"whole": [], "cached": []} for name in models}
    for number in range(1 + NUM_ROUNDS):
        for name, model in models.items():
            found = _step_times(model)
            # The first time oneDNN compiles.
            for step, seconds in found.items() if number else ():
                times[name][step] += seconds
    return {
        step: {name: 1000 * median(by_step[step]) for name, by_step in times.items()} for step in ("whole", "cached")
    }


@torch.inference_mode()
def _step_times(model: CPUMaskPredictor) -> dict[str, list[float]]:
    params = GenerationParams(gen_length=GEN_LENGTH, block_length=BLOCK_LENGTH, cache="dual", ignore_eos=True)
    canvas = prepare_response([7] * PROMPT_LENGTH, params, Vocabulary.of(model))
    sampler = Sampler(model)
    times: dict[str, list[float]] = {"whole": [], "cached": []}
    for number in range(GEN_LENGTH):
        # A block begins with a step over the whole canvas.
        step = "cached" if number % BLOCK_LENGTH else "whole"
        started = time.thread_time()
        sampler.step([canvas])
        times[step].append(time.thread_time() - started)
    return times


if __name__ == "__main__":
    typer.run(main)
