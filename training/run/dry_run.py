"""`--dry-run`: what a run would do, on its data but without weights: a batch, the schedule, the memory."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from llada_core.text.tokenizer import Tokenizer
from training.data.batches import Batch, BatchPlanner
from training.distributed import World
from training.options.fields import TrainingOptions
from training.run.memory import MemoryEstimate, count_parameters, estimate_memory
from training.run.objective import corrupt_batch
from training.run.optimizer import learning_rate_at
from training.run.report import Reporter
from training.run.run import load_samples, max_steps_of, planner_of, require_even_share
from training.run.start import Start, find_start

_ROWS_SHOWN = 2
_MASK = "░"
_COMPARED_PROCESSES = (1, 2, 4, 8)


def describe_run(options: TrainingOptions, *, log: Callable[[str], None]) -> Start:
    """Print what `run_training` would do with these options; gives what it would start from."""
    start = find_start(options, log=log, with_weights=False)
    with TemporaryDirectory() as scratch:
        alone = World(0, 1, torch.device("cpu"))
        folder = Path(scratch)
        samples, _ = load_samples(options, start, folder, alone, Reporter(folder, is_main=True))
        planner = planner_of(options, start, samples)
        require_even_share(planner, options, World(0, int(os.environ.get("WORLD_SIZE", "1")), alone.device))
        max_steps = max_steps_of(options, planner)
        log("\nThe first batch:")
        _show_batch(planner, start, options, log)
        tokens = sum(planner.plan(step).length * planner.batch_size for step in range(min(100, max_steps)))
        total_tokens = tokens * max_steps // min(100, max_steps)
    log(
        f"\n{max_steps:,} steps of {planner.batch_size} samples, {max_steps / planner.steps_per_epoch:.2f} epochs of "
        f"{len(samples):,} samples; about {total_tokens:,} tokens, padding included"
    )
    _show_schedule(options, max_steps, log)
    _show_memory(options, start, planner.batch_size, log)
    log("\nDry run: nothing was written.")
    return start


def _show_batch(planner: BatchPlanner, start: Start, options: TrainingOptions, log: Callable[[str], None]) -> None:
    batch = planner.collate(planner.plan(0), slice(0, _ROWS_SHOWN))
    mask_id, length = start.special_tokens.mask_id, batch.tokens_BL.shape[1]
    corrupted, _, t_B = corrupt_batch(batch, mask_id=mask_id, seed=options.seed)
    for row, t in enumerate(t_B.tolist()):
        masked = int(corrupted.masked_BL[row].sum())
        log(f"sample {int(batch.samples_B[row])}: {length} tokens, t = {t:.3f}, {masked} masked")
        log(f"  clean: {_text(start.tokenizer, batch, row, batch.tokens_BL[row].tolist(), -1)}")
        log(f"  noisy: {_text(start.tokenizer, batch, row, corrupted.tokens_BL[row].tolist(), mask_id)}")


def _text(tokenizer: Tokenizer, batch: Batch, row: int, ids: list[int], mask_id: int) -> str:
    """Every token visible: masks as ░, special tokens by name, a bar where the answer begins."""
    pieces = [_MASK if i == mask_id else tokenizer.token_text(i) for i in ids]
    start = int(batch.target_starts_B[row])
    if start:
        pieces.insert(start, "┃")
    return "".join(pieces).replace("\n", "⏎")


def _show_schedule(options: TrainingOptions, max_steps: int, log: Callable[[str], None]) -> None:
    shares = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
    steps = sorted({round(share * (max_steps - 1)) for share in shares} | {min(options.warmup_steps, max_steps - 1)})
    log(f"Learning rate ({options.lr_schedule}, {options.warmup_steps} warm-up steps):")
    log("  " + "   ".join(f"step {s + 1:,}: {learning_rate_at(s, options, max_steps=max_steps):.2e}" for s in steps))


def _show_memory(options: TrainingOptions, start: Start, batch_size: int, log: Callable[[str], None]) -> None:
    total, trained = count_parameters(
        start.config, lora_r=options.lora_r, lora_target_modules=tuple(options.lora_target_modules)
    )
    log(f"\n{total:,} parameters, {trained:,} of them trained")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    counts = sorted({processes, *_COMPARED_PROCESSES})
    length = max(options.max_length, getattr(options, "pad_to", None) or 0)
    log(f"Memory of one device, in GB, at {length:,} tokens ({options.dtype}):")
    log("  processes  strategy  rows   weights  gradients  optimizer  copies  activations  logits  backward   total")
    for size in counts:
        if batch_size % size:
            continue
        rows = min(options.micro_batch_size or batch_size, batch_size // size)
        found = estimate_memory(
            start.config,
            rows=rows,
            length=length,
            strategy="single" if size == 1 else options.strategy,
            world_size=size,
            bfloat16=options.dtype == "bfloat16",
            activation_checkpointing=options.activation_checkpointing,
            lora_r=options.lora_r,
            lora_target_modules=tuple(options.lora_target_modules),
        )
        name = "single" if size == 1 else options.strategy
        log(f"  {size:>9}  {name:>8}  {rows:>4}  {_columns(found)}{'   ← this run' if size == processes else ''}")


def _columns(found: MemoryEstimate) -> str:
    widths = (8, 9, 9, 6, 11, 6, 8, 6)
    values = (
        found.weights, found.gradients, found.optimizer, found.copies, found.activations, found.logits,
        found.backward, found.total,
    )  # fmt: skip
    return "  ".join(f"{value / 1e9:>{width}.2f}" for value, width in zip(values, widths, strict=True))
