"""Everything that can only be checked on a GPU, in one command: `make gpu-check`.

    python -m benchmarks.gpu_check                  # the CUDA device
    python -m benchmarks.gpu_check --device cpu     # the script itself, where there is none

In float32, compares logits and tokens of every golden run, caches and thresholds included, with the CPU's; in
bfloat16, the variable-length kernel with the dense one. Then compares a training step with the CPU's and measures
denoising speed by batch size.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import machine
from benchmarks.inference import SIZES
from llada_core import GenerationParams, load_checkpoint
from llada_core.diffusion.loss import row_losses
from llada_core.diffusion.noise import corrupt
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.text.special_tokens import SpecialTokens

GOLDEN = Path(__file__).parent.parent / "tests/golden"
BATCH_SIZES = (1, 8, 32)


def main(
    device: Annotated[str, typer.Option(help="cuda, cuda:N or, to try the script, cpu.")] = "cuda",
    sizes: Annotated[list[str], typer.Option(help=f"Sizes to measure: {', '.join(SIZES)}.")] = ["134M", "464M"],  # noqa: B006
    output_dir: Annotated[Path, typer.Option(help="Folder for gpu.json.")] = machine.RESULTS,
) -> None:
    """Print each check and write all of them; exit with 1 if one fails."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        typer.echo("gpu-check: this machine has no CUDA device; --device cpu tries the script itself", err=True)
        raise typer.Exit(2)
    where = torch.device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    result: dict[str, Any] = {"machine": machine.describe(), "device": name, "checks": {}, "speed": {}}
    for check, is_met, figure in _checks(where):
        result["checks"][check] = {"met": is_met, "figure": figure}
        typer.echo(f"{'ok  ' if is_met else 'FAIL'} {check}: {figure}")
    for size in sizes:
        result["speed"][size] = dict(_speed(size, where))
        typer.echo(f"{size}: {json.dumps(result['speed'][size])}")
    machine.write("gpu", result, output_dir)
    if not all(check["met"] for check in result["checks"].values()):
        raise typer.Exit(1)


def _checks(device: torch.device) -> Iterator[tuple[str, bool, str]]:
    cases = json.loads((GOLDEN / "cases.json").read_text())
    cached = json.loads((GOLDEN / "cache_cases.json").read_text())
    for name in ("tiny-mha", "tiny-gqa"):
        folder = GOLDEN / "models" / name
        here, there = load_checkpoint(folder).eval(), load_checkpoint(folder, device=str(device)).eval()
        tokens_T = torch.randint(300, (60,), generator=torch.Generator().manual_seed(0))
        lengths = (13, 30, 17)
        with torch.inference_mode():
            expected = here.head(here.hidden_states(PackedTokens(tokens_T, lengths)))
            found = there.head(there.hidden_states(PackedTokens(tokens_T.to(device), lengths))).cpu()
        error = float((found - expected).abs().max())
        yield f"{name}: float32 logits", error < 1e-3, f"largest difference {error:.1e}"
        own = [case for case in cases["generate"] if case["model"] == name and case["attention_mask"] is None]
        runs = [
            (prompt, GenerationParams(**case["params"], ignore_eos=True), output)
            for case in own
            for prompt, output in zip(case["prompt_ids"], case["output_ids"], strict=True)
        ]
        runs += [
            (case["prompt_ids"], _cached_params(case), case["output_ids"]) for case in cached if case["model"] == name
        ]
        equal = _equal_runs(there, runs)
        yield f"{name}: golden tokens, one batch", equal == len(runs), f"{equal} of {len(runs)} runs"
        half = there.to(torch.bfloat16)
        with torch.inference_mode():
            together = half.hidden_states(PackedTokens(tokens_T.to(device), lengths)).float()
        # With gradients enabled attention takes the dense kernel.
        dense = half.hidden_states(PackedTokens(tokens_T.to(device), lengths)).detach().float()
        error = float((together - dense).square().mean().sqrt() / dense.std())
        yield f"{name}: variable-length kernel in bfloat16", error < 0.05, f"relative difference {error:.3f}"
        yield f"{name}: a training step", *_training_step(folder, device)


def _cached_params(case: dict[str, Any]) -> GenerationParams:
    threshold = case["confidence_threshold"]
    return GenerationParams(
        gen_length=case["gen_length"],
        steps=case["steps"] if threshold is None else None,
        block_length=case["block_length"],
        cache=case["cache"],
        confidence_threshold=threshold,
        ignore_eos=True,
    )


def _equal_runs(model: Network, runs: list[tuple[list[int], GenerationParams, list[int]]]) -> int:
    canvases = [prepare_response(prompt, params, Vocabulary.of(model)) for prompt, params, _ in runs]
    sampler = Sampler(model)
    while running := [canvas for canvas in canvases if canvas.finish_reason is None]:
        sampler.step(running)
    return sum(canvas.response == output for canvas, (_, _, output) in zip(canvases, runs, strict=True))


def _training_step(folder: Path, device: torch.device) -> tuple[bool, str]:
    losses = []
    for where in (torch.device("cpu"), device):
        model = load_checkpoint(folder, device=str(where)).train()
        generator = torch.Generator().manual_seed(1)
        tokens_BL = torch.randint(300, (4, 32), generator=generator).to(where)
        draws_BL = torch.rand(4, 32, generator=generator, dtype=torch.float64).to(where)
        levels_B = torch.linspace(0.2, 0.9, 4, dtype=torch.float64).to(where)
        corrupted = corrupt(tokens_BL, levels_B, draws_BL, mask_id=model.special_tokens.mask_id)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            loss = row_losses(model, tokens_BL, corrupted).mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    difference = abs(losses[0] - losses[1]) / abs(losses[0])
    return difference < 1e-4, f"loss of the third step {losses[0]:.4f} on the CPU, differs by {difference:.1e}"


def _speed(size: str, device: torch.device) -> Iterator[tuple[str, float]]:
    """Canvases' steps a second by batch size: 64 prompt and 128 response tokens, bfloat16, without and with caches."""
    shape = SIZES[size]
    torch.manual_seed(0)
    model = Network(LLaDAConfig(**shape, max_sequence_length=1024)).to(device, torch.bfloat16).eval()
    model.special_tokens = SpecialTokens(*(shape["vocab_size"] - n for n in (1, 2, 3)))
    for cache in ("none", "dual"):
        for batch_size in BATCH_SIZES:
            params = GenerationParams(gen_length=128, steps=32, cache=cache, ignore_eos=True)
            canvases = [prepare_response([7] * 64, params, Vocabulary.of(model)) for _ in range(batch_size)]
            sampler = Sampler(model)
            sampler.step(canvases)
            started = time.perf_counter()
            for _ in range(31):
                sampler.step(canvases)
            yield f"cache {cache}, batch {batch_size}", round(31 * batch_size / (time.perf_counter() - started), 1)


if __name__ == "__main__":
    typer.run(main)
