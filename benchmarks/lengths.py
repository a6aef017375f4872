"""One denoising step on canvases of 512 to 4,096 positions, as a share of what the processor's matrix products allow.

    python -m benchmarks.lengths                    # 134 M parameters; five minutes

The roofline is the time of all multiply-adds of the step, those of the linear maps and those of attention, at the speed
of a large matrix product in the same dtype, measured by the same process. CPU time of one thread; random weights, a
block of 32 masks, no cache. Around int8 linear maps attention is in bfloat16.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import machine
from benchmarks.inference import SIZES
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.names import tensor_name
from llada_core.model.backends.cpu import CPUMaskPredictor, Quantization
from llada_core.model.network import Network
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.text.special_tokens import SpecialTokens

# name → (dtype of hidden states and attention, quantization)
KINDS: Mapping[str, tuple[torch.dtype, Quantization]] = {
    "float32": (torch.float32, "none"),
    "bfloat16": (torch.bfloat16, "none"),
    "int8": (torch.bfloat16, "int8"),
}
BLOCK_LENGTH = 32


def main(
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "134M",
    lengths: Annotated[list[int], typer.Option(help="Positions; repeatable.")] = [512, 1024, 2048, 4096],  # noqa: B006
    output_dir: Annotated[Path, typer.Option(help="Folder for lengths.json.")] = machine.RESULTS,
) -> None:
    """Print each figure as soon as it is measured and write all of them as JSON."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine.describe(), "size": size, "kinds": {}}
    reached = result["machine"]["giga_operations_per_second_and_thread"]
    for kind in KINDS:
        result["kinds"][kind] = measure(SIZES[size], kind, lengths)
        # Other load on the machine only ever slows a product down.
        for name, speed in machine.matrix_products().items():
            reached[name] = max(reached[name], speed)
        for length, figures in result["kinds"][kind].items():
            typer.echo(f"{kind}, {length}: {figures['step_cpu_s']:.2f} s, {share(figures, kind, reached):.0%}")
    machine.write("lengths", result, output_dir)


@torch.inference_mode()
def measure(shape: Mapping[str, Any], kind: str, lengths: Sequence[int]) -> dict[str, dict[str, float]]:
    """Time a step at each length, and count its multiply-adds."""
    model = random_model(shape, kind, max_sequence_length=max(lengths))
    found = {}
    for length in lengths:
        linear, attention = multiply_adds(LLaDAConfig(**shape), length)
        seconds = _step_seconds(model, length)
        found[str(length)] = {"step_cpu_s": seconds, "linear_gop": 2e-9 * linear, "attention_gop": 2e-9 * attention}
    return found


def share(figures: Mapping[str, float], kind: str, reached: Mapping[str, float]) -> float:
    """Return the time of the roofline over the time of the step.

    Args:
        reached: giga-operations per second of a large matrix product in each kind.
    """
    attention_kind = "float32" if kind == "float32" else "bfloat16"
    roofline = figures["linear_gop"] / reached[kind] + figures["attention_gop"] / reached[attention_kind]
    return roofline / figures["step_cpu_s"]


def random_model(shape: Mapping[str, Any], kind: str, *, max_sequence_length: int = 1024) -> CPUMaskPredictor:
    """Return a model of random weights; the last three token ids are the special ones."""
    dtype, quantization = KINDS[kind]
    torch.manual_seed(0)
    config = LLaDAConfig(**shape, max_sequence_length=max_sequence_length)
    weights = Network(config).state_dict()
    return CPUMaskPredictor(
        config,
        SpecialTokens(*(shape["vocab_size"] - number for number in (1, 2, 3))),
        lambda role, depth: weights[tensor_name(role, depth)],
        dtype=dtype,
        quantization=quantization,
    )


def multiply_adds(config: LLaDAConfig, length: int) -> tuple[int, int]:
    """Return the multiply-adds of one step: of the linear maps, and of attention.

    In the last block queries, and everything after them, exist only at the block's masks.
    """
    assert config.n_kv_heads is not None and config.mlp_hidden_size is not None and config.embedding_size is not None
    width, blocks = config.d_model, config.n_layers - 1
    keys_and_values = 2 * width * config.n_kv_heads * config.head_dim
    rest = 2 * width**2 + 3 * width * config.mlp_hidden_size
    positions = blocks * length + BLOCK_LENGTH
    linear = (blocks + 1) * length * keys_and_values + positions * rest + BLOCK_LENGTH * width * config.embedding_size
    return linear, 2 * positions * length * width


def _step_seconds(model: CPUMaskPredictor, length: int) -> float:
    """The fastest of two steps after a first one, for which oneDNN compiles."""
    params = GenerationParams(gen_length=BLOCK_LENGTH, block_length=BLOCK_LENGTH, ignore_eos=True)
    canvas = prepare_response([7] * (length - BLOCK_LENGTH), params, Vocabulary.of(model))
    sampler, seconds = Sampler(model), []
    for _ in range(3):
        started = time.thread_time()
        sampler.step([canvas])
        seconds.append(time.thread_time() - started)
    return min(seconds[1:])


if __name__ == "__main__":
    typer.run(main)
