"""The first step of a chat's second turn on a block-causal model, with the first turn in the prefix pool and without.

    python -m benchmarks.prefix                     # 119 M parameters in SDAR's layout; two minutes

Both turns have 1,024 tokens in common; the second adds a message of 40. Steps with and without the pool alternate, on
the same tokens. CPU time of one thread, random weights. Beside the steps stands what the pool costs: copying these
blocks into it, as every request does with those that it finishes, and out of it.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import machine
from benchmarks.lengths import KINDS
from llada_core.model.architectures.sdar import SDARConfig
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.model.kv_cache import KVCache
from llada_core.model.network import Network
from llada_core.model.prefix_pool import PrefixPool
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.params import EXACT, GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.text.special_tokens import SpecialTokens

SIZES: Mapping[str, dict[str, Any]] = {
    "tiny": {},
    "119M": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "num_hidden_layers": 12,
        "intermediate_size": 2048,
        "vocab_size": 32000,
    },
}
SHARED_LENGTH, MESSAGE_LENGTH = 1024, 40
_PLENTY = 8 << 30


def main(
    size: Annotated[str, typer.Option(help=f"One of {', '.join(SIZES)}.")] = "119M",
    block_lengths: Annotated[list[int], typer.Option(help="Tokens of a block; repeatable.")] = [4, 32],  # noqa: B006
    rounds: Annotated[int, typer.Option(help="Steps of each kind, besides a first one.", min=1)] = 5,
    output_dir: Annotated[Path, typer.Option(help="Folder for prefix.json.")] = machine.RESULTS,
) -> None:
    """Print each figure as soon as it is measured and write all of them as JSON."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine.describe(), "size": size, "kinds": {}}
    for kind in KINDS:
        model = random_model(SIZES[size], kind)
        result["kinds"][kind] = {str(length): measure(model, length, rounds) for length in block_lengths}
        for length, found in result["kinds"][kind].items():
            ratio = found["without_cpu_s"] / found["with_cpu_s"]
            typer.echo(f"{kind}, blocks of {length}: {found['without_cpu_s']:.3f} s, from the pool {ratio:.1f}× less")
    machine.write("prefix", result, output_dir)


def random_model(shape: Mapping[str, Any], kind: str) -> CPUMaskPredictor:
    """Return a block-causal model of random weights; the last three token ids are the special ones."""
    dtype, quantization = KINDS[kind]
    torch.manual_seed(0)
    config = SDARConfig(**shape, max_position_embeddings=SHARED_LENGTH + 4 * MESSAGE_LENGTH)
    weights, names = Network(config).state_dict(), config.describe().names
    return CPUMaskPredictor(
        config,
        SpecialTokens(*(config.vocab_size - number for number in (1, 2, 3))),
        lambda role, depth: weights[names.tensor(role, depth)],
        dtype=dtype,
        quantization=quantization,
    )


@torch.inference_mode()
def measure(model: CPUMaskPredictor, block_length: int, rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of the second turn's first step, with the pool and without, and of the copies."""
    rng = np.random.default_rng(0)
    pool = PrefixPool(model, _PLENTY)
    samplers = {"without": Sampler(model), "with": Sampler(model, pool)}
    shared = rng.integers(model.shape.vocab_size - 3, size=SHARED_LENGTH).tolist()
    samplers["with"].step([_canvas(model, shared, block_length)])
    seconds: dict[str, list[float]] = {name: [] for name in ("without", "with", "into_pool", "out_of_pool")}
    for _ in range(1 + rounds):
        # The message is new each time, or the pool would have that too.
        prompt = shared + rng.integers(model.shape.vocab_size - 3, size=MESSAGE_LENGTH).tolist()
        tokens = {}
        for name, sampler in samplers.items():
            canvas = _canvas(model, prompt, block_length)
            started = time.thread_time()
            (step,) = sampler.step([canvas])
            seconds[name].append(time.thread_time() - started)
            assert step.reused_tokens == (SHARED_LENGTH if name == "with" else 0)
            tokens[name] = canvas.response
        assert tokens["with"] == tokens["without"] or model.dtype != torch.float32
        for name, took in _copies(model, pool, np.array(shared), block_length).items():
            seconds[name].append(took)
    # The first round compiles oneDNN's kernels.
    return {f"{name}_cpu_s": median(found[1:]) for name, found in seconds.items()}


def _canvas(model: CPUMaskPredictor, prompt: list[int], block_length: int) -> Canvas:
    params = GenerationParams(gen_length=32, block_length=block_length, steps_per_block=4, cache=EXACT, ignore_eos=True)
    return prepare_response(prompt, params, Vocabulary.of(model))


def _copies(model: CPUMaskPredictor, pool: PrefixPool, tokens_L: np.ndarray, block_length: int) -> dict[str, float]:
    """Time a copy of the shared blocks out of the pool, and into an empty one."""
    cache, length = KVCache(model.shape, SHARED_LENGTH, dtype=model.dtype, device=model.device), SHARED_LENGTH
    # Fault the pages in, as a step does anyway when it writes keys and values.
    cache.write(0, torch.zeros_like(cache.read(slice(length))))
    out = _seconds(lambda: pool.fill(cache, tokens_L, block_length))
    other = KVCache(model.shape, SHARED_LENGTH, dtype=model.dtype, device=model.device)
    other.write(0, cache.read(slice(length)))
    other.filled = length
    empty = PrefixPool(model, _PLENTY)
    return {"into_pool": _seconds(lambda: empty.keep(other, tokens_L, block_length)), "out_of_pool": out}


def _seconds(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return time.thread_time() - started


if __name__ == "__main__":
    typer.run(main)
