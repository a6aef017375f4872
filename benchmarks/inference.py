"""Denoising on one CPU thread against the published algorithm, on the same random weights.

    python -m benchmarks.inference                  # 8 M, 134 M and 464 M parameters and a mixture; 40 minutes
    python -m benchmarks.inference --sizes 8M

The canvas has 64 prompt and 128 response tokens in blocks of 32, with one token per step. All candidates run in one
process and take turns of a few steps, so that other load on the machine affects all of them. The thread's CPU time is
compared; wall time is also recorded. The published loop computes the same whole canvas at every step, so a few steps,
spread over the run, stand for its 128. Generating one block beforehand is the warm-up. In float32 every step must give
the reference's canvas.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import machine
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada_moe import LLaDAMoEConfig
from llada_core.model.backends.cpu import CPUMaskPredictor, Quantization
from llada_core.model.network import Network
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.text.special_tokens import SpecialTokens
from tests.reference.llada import Predictor, ReferenceModel
from tests.reference.llada import denoise as reference_denoise
from tests.reference.llada_moe import ReferenceMoE

SIZES: Mapping[str, dict[str, Any]] = {
    "tiny": {"d_model": 64, "n_heads": 4, "n_layers": 2, "mlp_hidden_size": 128, "vocab_size": 256},
    "8M": {"d_model": 256, "n_heads": 4, "n_layers": 8, "mlp_hidden_size": 704, "vocab_size": 3072},
    "134M": {"d_model": 768, "n_heads": 12, "n_layers": 12, "mlp_hidden_size": 2048, "vocab_size": 32000},
    "464M": {"d_model": 1024, "n_heads": 16, "n_layers": 16, "mlp_hidden_size": 2816, "vocab_size": 126464},
}
# LLaDA-MoE with a quarter of its experts at work at each token.
MIXTURES: Mapping[str, dict[str, Any]] = {
    "tiny mixture": {"hidden_size": 64, "num_hidden_layers": 2, "expert_intermediate_size": 32, "vocab_size": 256},
    "134M mixture": {
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "num_hidden_layers": 8,
        "expert_intermediate_size": 464,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "vocab_size": 32000,
    },
}
PROMPT_LENGTH, GEN_LENGTH, BLOCK_LENGTH = 64, 128, 32
NUM_TURNS = 16
DEFAULT = ["8M", "134M", "464M", "134M mixture"]

# name → (dtype, quantization, cache)
OURS: Mapping[str, tuple[torch.dtype, Quantization, str]] = {
    "float32": (torch.float32, "none", "none"),
    "bfloat16": (torch.bfloat16, "none", "none"),
    "int8": (torch.bfloat16, "int8", "none"),
    "float32, dual cache": (torch.float32, "none", "dual"),
    "bfloat16, dual cache": (torch.bfloat16, "none", "dual"),
    "int8, dual cache": (torch.bfloat16, "int8", "dual"),
}


@dataclass
class Candidate:
    """One way to denoise the canvas, and the time of each step it has run.

    Attributes:
        canvases: the canvas after every step, as it comes.
        num_steps: how many of them are to be run.
    """

    name: str
    canvases: Iterator[np.ndarray]
    num_steps: int
    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    tokens: list[np.ndarray] = field(default_factory=list)

    def advance(self) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        canvas = next(self.canvases)
        self.cpu_seconds.append(time.thread_time() - cpu)
        self.wall_seconds.append(time.perf_counter() - wall)
        self.tokens.append(canvas)


def main(
    sizes: Annotated[list[str], typer.Option(help=f"One of {', '.join((*SIZES, *MIXTURES))}; repeatable.")] = DEFAULT,
    reference_steps: Annotated[int, typer.Option(help="Steps of the published loop that are run.", min=1)] = 16,
    threads: Annotated[int, typer.Option(help="Intra-op threads of every candidate.", min=1)] = 1,
    output_dir: Annotated[Path, typer.Option(help="Folder for inference.json.")] = machine.RESULTS,
) -> None:
    """Print the table and write it, with every setting, as JSON."""
    torch.set_num_threads(threads)
    result: dict[str, Any] = {"machine": machine.describe(), "threads": threads, "sizes": {}}
    for size in sizes:
        typer.echo(f"{size}:")
        result["sizes"][size] = measure(size, reference_steps, typer.echo)
        machine.write("inference", result, output_dir)
        _print_table(size, result["sizes"][size])


@torch.inference_mode()
def measure(size: str, reference_steps: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Run all candidates on random weights of a size."""
    torch.manual_seed(0)
    shape = {**SIZES, **MIXTURES}[size]
    config, reference_of = _architecture(size)
    tensor_name = config.describe().names.tensor
    weights = Network(config).state_dict()
    num_parameters = sum(weight.numel() for weight in weights.values())
    log(f"{num_parameters / 1e6:.1f} M parameters")
    # The last three words are the special ones; the prompt holds none of them.
    special_tokens = SpecialTokens(shape["vocab_size"] - 1, shape["vocab_size"] - 2, shape["vocab_size"] - 3)
    prompt = torch.randint(shape["vocab_size"] - 3, (PROMPT_LENGTH,)).tolist()
    candidates = [
        _reference(f"reference {name}", model, prompt, special_tokens.mask_id, reference_steps)
        for name, model in (
            ("float32", reference_of(config, weights)),
            ("bfloat16", reference_of(config, {name: weight.bfloat16() for name, weight in weights.items()})),
        )
    ]
    predictors: dict[tuple[torch.dtype, Quantization], CPUMaskPredictor] = {}
    for name, (dtype, quantization, cache) in OURS.items():
        if (dtype, quantization) not in predictors:
            predictors[dtype, quantization] = CPUMaskPredictor(
                config,
                special_tokens,
                lambda role, depth: weights[tensor_name(role, depth)],
                dtype=dtype,
                quantization=quantization,
            )
        # The first time that oneDNN sees a shape it compiles a kernel for it.
        for _ in _ours(predictors[dtype, quantization], prompt, cache, BLOCK_LENGTH):
            pass
        candidates.append(
            Candidate(name, _ours(predictors[dtype, quantization], prompt, cache, GEN_LENGTH), GEN_LENGTH)
        )
    for turn in range(NUM_TURNS):
        for candidate in candidates:
            for _ in range(candidate.num_steps * turn // NUM_TURNS, candidate.num_steps * (turn + 1) // NUM_TURNS):
                candidate.advance()
        log(f"turn {turn + 1} of {NUM_TURNS}")
    reference, exact = candidates[0], next(candidate for candidate in candidates if candidate.name == "float32")
    num_equal = sum(np.array_equal(a, b) for a, b in zip(reference.tokens, exact.tokens, strict=False))
    return {
        "parameters": num_parameters,
        "shape": shape,
        "prompt_length": PROMPT_LENGTH,
        "gen_length": GEN_LENGTH,
        "block_length": BLOCK_LENGTH,
        "reference_steps": reference_steps,
        "float32_steps_equal_to_reference": num_equal,
        "candidates": {candidate.name: _summary(candidate) for candidate in candidates},
    }


def _architecture(size: str) -> tuple[Any, Any]:
    """The config of a size, and the class of its published network."""
    if size in MIXTURES:
        return LLaDAMoEConfig(**MIXTURES[size], max_position_embeddings=1024), ReferenceMoE
    return LLaDAConfig(**SIZES[size], max_sequence_length=1024), ReferenceModel


def _reference(name: str, model: Predictor, prompt: list[int], mask_id: int, num_steps: int) -> Candidate:
    canvases = reference_denoise(
        model,
        torch.tensor([prompt]),
        steps=GEN_LENGTH,
        gen_length=GEN_LENGTH,
        block_length=BLOCK_LENGTH,
        mask_id=mask_id,
    )
    return Candidate(name, (canvas[0].numpy() for canvas in canvases), num_steps)


def _ours(model: CPUMaskPredictor, prompt: list[int], cache: str, gen_length: int) -> Iterator[np.ndarray]:
    params = GenerationParams(gen_length=gen_length, block_length=BLOCK_LENGTH, cache=cache, ignore_eos=True)
    canvas = prepare_response(prompt, params, Vocabulary.of(model))
    sampler = Sampler(model)
    while canvas.finish_reason is None:
        sampler.step([canvas])
        yield canvas.tokens.copy()


def _summary(candidate: Candidate) -> dict[str, Any]:
    """Times of a step, and of the generation: of all its steps, or of as many average ones."""
    return {
        "steps_run": len(candidate.cpu_seconds),
        "step_cpu_ms": mean(candidate.cpu_seconds) * 1000,
        "step_wall_ms": mean(candidate.wall_seconds) * 1000,
        "generation_cpu_s": mean(candidate.cpu_seconds) * GEN_LENGTH,
        "generation_wall_s": mean(candidate.wall_seconds) * GEN_LENGTH,
    }


def _print_table(size: str, result: dict[str, Any]) -> None:
    candidates = result["candidates"]
    baselines = [candidates[f"reference {dtype}"]["generation_cpu_s"] for dtype in ("float32", "bfloat16")]
    typer.echo(f"\n{size}: {result['parameters'] / 1e6:.0f} M parameters, CPU time of one thread")
    typer.echo(f"{'':<24}{'ms a step':>12}{'generation':>12}{'/ ref float32':>15}{'/ ref bfloat16':>16}")
    for name, figures in candidates.items():
        ratios = [baseline / figures["generation_cpu_s"] for baseline in baselines]
        typer.echo(
            f"{name:<24}{figures['step_cpu_ms']:>12.1f}{figures['generation_cpu_s']:>10.2f} s"
            f"{ratios[0]:>14.2f}×{ratios[1]:>15.2f}×"
        )
    compared, equal = result["reference_steps"], result["float32_steps_equal_to_reference"]
    typer.echo(f"float32 has the reference's canvas after {equal} of {compared} steps\n")


if __name__ == "__main__":
    typer.run(main)
