"""Measures the cost of the toolkit against a bare training loop, and whether memory stays constant.

    python -m benchmarks.training                 # the demo model's SFT batch, 2 threads
    python -m benchmarks.training --memory-steps 500

Both loops run the same model, optimizer, clipping and autocast on batches of the same shape, in turns of a few steps in
one process. CPU time is compared, since wall time on a shared machine says little. The bare loop has its batch in
memory, draws its noise with `torch.rand` and logs nothing; like the toolkit it computes the head only at the masked
positions.
"""

import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import torch.nn.functional as F
import typer

from llada_core import DEMO_FOLDER
from llada_core.model.backends.host_memory import keep_freed_memory
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens
from training.distributed import World
from training.options.fields import SFTOptions
from training.run.optimizer import build_optimizers
from training.run.report import Reporter
from training.run.run import build_trainer
from training.run.samples import load_samples
from training.run.start import find_start
from training.run.stream import Stream
from training.run.trainer import Trainer


def main(
    rounds: Annotated[int, typer.Option(help="Turns of each loop.")] = 12,
    steps: Annotated[int, typer.Option(help="Optimizer steps per turn.")] = 10,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    memory_steps: Annotated[int, typer.Option(help="Also train this many steps and watch memory.")] = 0,
) -> None:
    """Print steps per CPU second of both loops, and resident memory over the steps."""
    torch.set_num_threads(threads)
    keep_freed_memory(all_of_it=True)  # as `llada-train` does; it holds for the bare loop too
    with tempfile.TemporaryDirectory() as folder:
        trainer, rows, length = _trainer(Path(folder), threads)
        bare = BareLoop(Network(trainer.model.config).train(), rows, length)
        timings: dict[str, list[float]] = {"toolkit": [], "bare": []}
        for _ in range(rounds + 1):
            timings["toolkit"].append(_cpu_seconds(trainer.train_step, steps))
            trainer.log_window()
            timings["bare"].append(_cpu_seconds(bare.train_step, steps))
        # The first turn is a warm-up.
        seconds_per_step = {name: median(times[1:]) / steps for name, times in timings.items()}
        typer.echo(f"batch {rows}×{length}, {threads} threads, median of {rounds} turns of {steps} steps, CPU time")
        for name, seconds in seconds_per_step.items():
            typer.echo(
                f"  {name:<8} {seconds * 1000:8.1f} ms a step  {rows * length / seconds:>9,.0f} tokens per CPU s"
            )
        typer.echo(f"  toolkit / bare: {seconds_per_step['bare'] / seconds_per_step['toolkit']:.1%} of the throughput")
        for step in range(0, memory_steps, 50):
            typer.echo(f"  step {trainer.step:>5}: {_resident_mb():,.1f} MB resident")
            for _ in range(min(50, memory_steps - step)):
                trainer.train_step()
            trainer.log_window()
        if memory_steps:
            typer.echo(f"  step {trainer.step:>5}: {_resident_mb():,.1f} MB resident, peak {_peak_mb():,.1f} MB")


class BareLoop:
    """The shortest loop that trains the same model."""

    def __init__(self, model: Network, rows: int, length: int) -> None:
        self.model = model
        self.tokens_BL = torch.randint(10, model.shape.vocab_size, (rows, length))
        self.mask_id = int(model.config.mask_token_id or 0)
        (self.optimizer,) = build_optimizers(model, _options(Path(), 1))

    def train_step(self) -> None:
        batch_size, length = self.tokens_BL.shape
        p_B1 = torch.rand(batch_size, 1) * (1 - 1e-3) + 1e-3
        masked_BL = torch.rand(batch_size, length) < p_B1
        masked_BL[:, : length // 2] = False  # the prompt
        noisy_BL = self.tokens_BL.masked_fill(masked_BL, self.mask_id)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            packed = PackedTokens(noisy_BL.flatten(), (length,) * batch_size)
            logits_RV = self.model.head(self.model.hidden_states(packed)[masked_BL.flatten()]).float()
            losses_R = F.cross_entropy(logits_RV, self.tokens_BL[masked_BL], reduction="none")
            loss = (losses_R / p_B1.expand_as(masked_BL)[masked_BL]).sum() / (batch_size * length // 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


def _options(folder: Path, threads: int) -> SFTOptions:
    return SFTOptions.model_validate(
        {
            "model_name_or_path": str(DEMO_FOLDER),
            "train_data_path": [str(folder / "data.jsonl")],
            "output_dir": folder / "out",
            "max_length": 96,
            "batch_size": 32,
            "max_steps": 10**6,
            "threads": threads,
        }
    )


def _trainer(folder: Path, threads: int) -> tuple[Trainer, int, int]:
    """A trainer whose samples all have one length, about half of it prompt, so that both loops have the same shape."""
    line = '{"prompt": "one two three four five six seven eight %d", "completion": "%s"}\n'
    answer = "one two three four five six seven eight nine ten " * 2
    (folder / "data.jsonl").write_text("".join(line % (number % 10, answer) for number in range(2000)))
    options = _options(folder, threads)
    reporter = Reporter(options.output_dir, is_main=False)
    world = World(0, 1, torch.device("cpu"))
    start = find_start(options, log=typer.echo)
    samples = load_samples(start, options.output_dir / "data", world, reporter)
    assert not isinstance(samples.training, Stream)
    return build_trainer(start, samples, world, reporter), options.batch_size, int(samples.training.lengths[0])


def _cpu_seconds(train_step: object, steps: int) -> float:
    assert callable(train_step)
    started = time.process_time()
    for _ in range(steps):
        train_step()
    return time.process_time() - started


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    typer.run(main)
