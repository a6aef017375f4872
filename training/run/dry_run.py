"""`--dry-run`: describes a run on its own data but without weights: a batch, the schedule, the memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from llada_core.text.tokenizer import Tokenizer
from training.distributed import World
from training.launch import read_launch
from training.options.fields import TrainingOptions
from training.run.memory import MemoryEstimate, Strategy, count_parameters, estimate_memory
from training.run.plan import Planner, RunPlan, plan_run
from training.run.report import Reporter
from training.run.samples import Excerpt, load_excerpt
from training.run.schedule import Schedule
from training.run.start import Start, find_start
from training.stages.base import NoisyRow

_ROWS_SHOWN = 2
_STEPS_COUNTED = 100
_MASK = "░"
# Of the data, in characters: enough to estimate from, read in a few seconds.
EXCERPT = 4_000_000
_COMPARED_PROCESSES = (1, 2, 4, 8)

Log = Callable[[str], None]


def describe_run(options: TrainingOptions, *, log: Log) -> Start:
    """Print what `run_training` would do with these options, and return what the run would start with."""
    start = find_start(options, log=log, with_weights=False)
    device = torch.device("cpu")
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        reporter = Reporter(folder, is_main=True)
        excerpt = load_excerpt(start, folder, World(0, 1, device), reporter, num_characters=EXCERPT)
        world = World(0, read_launch().world_size, device)
        plan = plan_run(start, excerpt.samples, world, num_samples=excerpt.num_samples)
        log("\nThe first batch:")
        _show_batch(plan.planner, start, log)
    planner, max_steps = plan.planner, plan.max_steps
    log(
        f"\n{max_steps:,} steps of {planner.batch_size} samples, {_epochs(plan, excerpt)}; "
        f"about {_num_tokens(plan):,} tokens, padding included"
    )
    _show_schedule(plan.schedule, log)
    _show_memory(start, planner.batch_size, log)
    log("\nDry run: nothing was written.")
    return start


def _show_batch(planner: Planner, start: Start, log: Log) -> None:
    batch = planner.collate(planner.plan(0), slice(0, _ROWS_SHOWN))
    mask_id, tokenizer = start.model.special_tokens.mask_id, start.model.tokenizer
    for row in start.stage.noisy_rows(batch, mask_id=mask_id, seed=start.options.seed):
        num_masked = sum(then != now for then, now in zip(row.clean, row.noisy, strict=True))
        log(f"{row.name}: {len(row.clean)} tokens, t = {row.noise_level:.3f}, {num_masked} masked")
        log(f"  clean: {_text(tokenizer, row, row.clean, -1)}")
        log(f"  noisy: {_text(tokenizer, row, row.noisy, mask_id)}")


def _text(tokenizer: Tokenizer, row: NoisyRow, ids: list[int], mask_id: int) -> str:
    """Every token made visible: masks as ░, special tokens as ⟦name⟧ (if not typed), a bar before the answer."""
    pieces = [_MASK if i == mask_id else _piece(tokenizer, i) for i in ids]
    if row.target_start:
        pieces.insert(row.target_start, "┃")
    return "".join(pieces).replace("\n", "⏎")


def _piece(tokenizer: Tokenizer, token_id: int) -> str:
    text = tokenizer.token_text(token_id)
    return f"⟦{text.strip('<|>')}⟧" if token_id in tokenizer.special_tokens else text


def _epochs(plan: RunPlan, excerpt: Excerpt) -> str:
    if excerpt.num_samples is None:
        return "an unknown share of the data, of which only the first records were read"
    epochs = plan.max_steps * plan.planner.batch_size / plan.planner.repeats / excerpt.num_samples
    about = "" if excerpt.share == 1 else "about "
    return f"{about}{epochs:.2f} epochs of {about}{excerpt.num_samples:,} samples"


def _num_tokens(plan: RunPlan) -> int:
    """The tokens of the whole run, extrapolated from its first steps."""
    num_counted = min(_STEPS_COUNTED, plan.max_steps)
    return sum(plan.planner.plan(step).num_tokens for step in range(num_counted)) * plan.max_steps // num_counted


def _show_schedule(schedule: Schedule, log: Log) -> None:
    shares, last = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0), schedule.max_steps - 1
    steps = sorted({round(share * last) for share in shares} | {min(schedule.warmup_steps, last)})
    log(f"Learning rate ({schedule.lr_schedule}, {schedule.warmup_steps} warm-up steps):")
    log("  " + "   ".join(f"step {step + 1:,}: {schedule.rate_at(step):.2e}" for step in steps))


def _show_memory(start: Start, batch_size: int, log: Log) -> None:
    options, config = start.options, start.model.config
    total, trained = count_parameters(config, start.lora)
    log(f"\n{total:,} parameters, {trained:,} of them trained")
    length = max(start.stage.row_lengths.values())
    estimates = list(_estimates(start, batch_size, length))
    is_small = max(estimate.total for *_, estimate in estimates) < 1e9
    unit, size_of_unit = ("MB", 1e6) if is_small else ("GB", 1e9)
    log(f"Memory of one device, in {unit}, at {length:,} tokens ({options.dtype}):")
    answers = "" if start.stage.work.answering is None else "  answers"
    log(
        "  processes  strategy  rows   weights  gradients  optimizer  copies  activations  logits  backward"
        f"{answers}   total"
    )
    for size, strategy, rows, estimate in estimates:
        is_this_run = "   ← this run" if size == read_launch().world_size else ""
        columns = _columns(estimate, size_of_unit, with_answers=bool(answers))
        log(f"  {size:>9}  {strategy:>8}  {rows:>4}  {columns}{is_this_run}")


def _estimates(start: Start, batch_size: int, length: int) -> Iterator[tuple[int, str, int, MemoryEstimate]]:
    """The memory of this run's number of processes and of some others: processes, strategy, rows, bytes."""
    options = start.options
    for size in sorted({read_launch().world_size, *_COMPARED_PROCESSES}):
        if batch_size % size:
            continue
        strategy: Strategy = "single" if size == 1 else options.strategy
        rows = min(options.micro_batch_size or batch_size, batch_size // size) * start.stage.work.rows
        estimate = estimate_memory(
            start.model.config,
            options,
            rows=rows,
            length=length,
            strategy=strategy,
            world_size=size,
            has_reference=start.stage.has_reference,
            work=start.stage.work,
        )
        yield size, strategy, rows, estimate


def _columns(estimate: MemoryEstimate, size_of_unit: float, *, with_answers: bool) -> str:
    widths = (8, 9, 9, 6, 11, 6, 8, *((7,) if with_answers else ()), 6)
    values = (
        estimate.weights, estimate.gradients, estimate.optimizer, estimate.copies, estimate.activations,
        estimate.logits, estimate.backward, *((estimate.answers,) if with_answers else ()), estimate.total,
    )  # fmt: skip
    return "  ".join(f"{value / size_of_unit:>{width}.2f}" for value, width in zip(values, widths, strict=True))
