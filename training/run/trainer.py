"""The training loop, the same for pre-training and SFT, on one process or many.

A step: plan the batch → compute this process's rows in micro-batches → clip → AdamW. Nothing random has state: order
and noise follow from (seed, sample, epoch), so a checkpoint is weights, optimizer and the number of the step.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llada_core import GenerationParams, generate
from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import BatchPlanner
from training.data.samples import Samples
from training.distributed import World
from training.errors import TrainingError
from training.evaluation.likelihood_bound import Evaluation, by_level, evaluate
from training.options.fields import SFTOptions, TrainingOptions
from training.run.checkpoints import Checkpoints, RunIdentity, State
from training.run.memory import is_out_of_memory
from training.run.optimizer import build_optimizer, learning_rate_at
from training.run.parallelize import accumulation, whole_weights
from training.run.report import Reporter

_NOISE_LEVEL_BINS = 10
_EVAL_NOISE_LEVELS = 8


@dataclass(slots=True)
class _Window:
    """Since the last record, left on the device: a loss and gradient norm per step, sums per noise level."""

    level_sums: Tensor
    losses: list[Tensor] = field(default_factory=list)
    gradient_norms: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)


class Trainer:
    """Trains a model in place; resumes from `checkpoints` where asked to.

    Attributes:
        step: optimizer steps done.
        model: the model itself; under FSDP2 its weights are sharded.
    """

    def __init__(
        self,
        module: nn.Module,
        model: LLaDAModelLM,
        planner: BatchPlanner,
        options: TrainingOptions,
        *,
        max_steps: int,
        identity: RunIdentity,
        world: World,
        checkpoints: Checkpoints,
        reporter: Reporter,
        tokenizer: Tokenizer,
        tokenizer_file: Path,
        val_samples: Samples | None = None,
    ) -> None:
        """
        Args:
            module: the objective around `model`, as `parallelize` returned it.
            identity: kept in checkpoints, compared on resume.
        """
        self.model = model
        self.step = 0
        self._module = module
        self._planner = planner
        self._options = options
        self._max_steps = max_steps
        self._identity = identity
        self._world = world
        self._checkpoints = checkpoints
        self._reporter = reporter
        self._tokenizer = tokenizer
        self._tokenizer_file = tokenizer_file
        self._val_samples = val_samples
        self._optimizer = build_optimizer(model, options)
        self._last_saved: int | None = None
        self._stop_requested = False
        self._owes_validation = False
        self._window = self._new_window()

    def resume(self) -> bool:
        """Continue from the newest checkpoint; False where there is none."""
        state = self._checkpoints.restore(self.model, self._optimizer, self._identity)
        if state is None:
            return False
        self.step = self._last_saved = state.step
        # Who stopped the run did not wait for it.
        self._owes_validation = state.val_loss is None and self._val_samples is not None and self._is_validated()
        return True

    def train(self) -> None:
        """Train to the last step. SIGINT and SIGTERM save a checkpoint and leave; a second SIGINT leaves at once.

        Raises:
            TrainingError: stopped by a signal; a loss that is not finite; a checkpoint that cannot be written.
        """
        with self._signals(), self._reporter.run(first_step=self.step, max_steps=self._max_steps):
            self._loop()

    def _loop(self) -> None:
        self._window = self._new_window()
        if self._owes_validation:
            self._end_step()
        while self.step < self._max_steps:
            self.train_step()
            if self._is_due(self._options.log_steps):
                self.log_window()
            self._end_step()

    def _end_step(self) -> None:
        """Validate, save and stop, each where it is due."""
        # Who asks a run to stop does not wait for a validation.
        val_loss = self._validate() if self._is_validated() and not self._is_stopping() else None
        is_stopping = self._is_stopping()
        if self._is_due(self._options.save_steps) or is_stopping or self._owes_validation:
            self._save(val_loss)
        self._reporter.advance(self.step)
        if is_stopping:
            raise self._world.error(f"stopped by a signal after step {self.step}; --resume continues from there")
        self._owes_validation = False

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self._max_steps

    def _is_validated(self) -> bool:
        return self._is_due(self._options.eval_steps or self._options.save_steps)

    def _is_stopping(self) -> bool:
        return self._world.any(self._stop_requested)

    def train_step(self) -> None:
        """One optimizer step."""
        options, world = self._options, self._world
        plan = self._planner.plan(self.step)
        rows = world.part_of(len(plan.indices))
        size = options.micro_batch_size or len(rows)
        starts = range(rows.start, rows.stop, size)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(self.step, options, max_steps=self._max_steps)
        self._optimizer.zero_grad(set_to_none=True)
        step_loss = torch.zeros((), device=world.device)
        for start in starts:
            batch = self._planner.collate(plan, slice(start, min(start + size, rows.stop))).to(world.device)
            with accumulation(self._module, is_last=start == starts[-1]):
                with self._autocast():
                    loss, losses_B, t_B = self._module(batch)
                # DDP and FSDP2 average over processes; the parts are meant to add up.
                (loss * world.size).backward()
            step_loss += loss.detach()
            self._count_levels(losses_B, t_B)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), options.gradient_clip)
        self._optimizer.step()
        self._window.losses.append(step_loss)
        self._window.gradient_norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        self._window.tokens += plan.length * len(plan.indices)
        self.step += 1

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=self._options.dtype == "bfloat16")

    def _count_levels(self, losses_B: Tensor, t_B: Tensor) -> None:
        bins_B = (t_B * _NOISE_LEVEL_BINS).long()
        self._window.level_sums[0].index_add_(0, bins_B, losses_B)
        self._window.level_sums[1].index_add_(0, bins_B, torch.ones_like(losses_B))

    def _new_window(self) -> _Window:
        return _Window(torch.zeros(2, _NOISE_LEVEL_BINS, dtype=torch.float64, device=self._world.device))

    def log_window(self) -> None:
        """Report the steps since the last time, and stop if one of them went wrong."""
        window, self._window = self._window, self._new_window()
        if not window.losses:
            return
        losses = self._world.sum(torch.stack(window.losses)).cpu()
        self._require_finite(losses, torch.stack(window.gradient_norms).cpu())
        level_sums = self._world.sum(window.level_sums).cpu()
        seconds = time.monotonic() - window.started
        learning_rate = self._optimizer.param_groups[0]["lr"]
        record = {
            "step": self.step,
            "loss": losses.mean().item(),
            "lr": learning_rate,
            "gradient_norm": window.gradient_norms[-1].item(),
            "tokens_per_second": round(window.tokens / seconds),
            "loss_by_noise_level": by_level(*level_sums),
        }
        remaining = (self._max_steps - self.step) * seconds / len(losses)
        line = (
            f"step {self.step}/{self._max_steps}  loss {record['loss']:.4f}  lr {learning_rate:.2e}  "
            f"{record['tokens_per_second']:,} tokens/s  {_duration(remaining)} left"
        )
        self._reporter.log(record, line)

    def _require_finite(self, losses: Tensor, gradient_norms: Tensor) -> None:
        is_finite = losses.isfinite() & gradient_norms.isfinite()
        if not is_finite.all():
            step = self.step - len(losses) + int((~is_finite).nonzero()[0]) + 1
            last = "none yet" if self._last_saved is None else f"step-{self._last_saved}"
            raise self._world.error(
                f"loss or gradient is not finite in step {step}; last good checkpoint: {last}. Try a lower "
                "--learning-rate, more --warmup-steps or --dtype float32 in a new --output-dir, from the start or from "
                "that checkpoint's export"
            )

    def _validate(self) -> float | None:
        """The validation loss, in nats per token; None without validation data."""
        if self._val_samples is None and not self._options.eval_prompt:
            return None
        val_loss = None
        self.log_window()
        with whole_weights(self._module):
            if self._val_samples is not None:
                with self._autocast():
                    found = evaluate(
                        self.model,
                        self._val_samples,
                        num_samples=self._options.eval_samples,
                        noise_levels=_EVAL_NOISE_LEVELS,
                        seed=self._options.seed,
                        here=self._world,
                        is_stopping=self._is_stopping,
                    )
                if found is not None:
                    val_loss = found.nll
                    self._report_validation(found)
            if not self._is_stopping():
                self._reporter.samples(self.step, self._generate_samples())
        self._window.started = time.monotonic()
        return val_loss

    def _report_validation(self, found: Evaluation) -> None:
        record = {"step": self.step, "val_loss": found.nll, "val_loss_by_noise_level": found.by_noise_level}
        line = f"step {self.step}/{self._max_steps}  validation NLL bound {found.nll:.4f} nats per token"
        self._reporter.log(record, line)

    def _generate_samples(self) -> dict[str, str]:
        prompts = self._options.eval_prompt
        if not prompts:
            return {}
        self.model.eval()
        params = GenerationParams(gen_length=self._options.eval_gen_length)
        is_chat = isinstance(self._options, SFTOptions)
        asked = [[Message("user", prompt)] if is_chat else prompt for prompt in prompts]
        results = generate(self.model, asked, params, tokenizer=self._tokenizer)
        self.model.train()
        return {prompt: result.text or "" for prompt, result in zip(prompts, results, strict=True)}

    def _save(self, val_loss: float | None) -> None:
        self.log_window()
        state = State(self.step, val_loss, self._identity)
        self._checkpoints.save(self.model, self._optimizer, state, tokenizer_file=self._tokenizer_file)
        self._last_saved = self.step

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def request_stop(number: int, frame: FrameType | None) -> None:
            if self._stop_requested and number == signal.SIGINT and self._world.size == 1:
                raise KeyboardInterrupt
            if self._world.is_main and not self._stop_requested:
                # A handler may run in the middle of a `print`, which must not be entered twice.
                os.write(2, b"\nstopping: saving a checkpoint after this step\n")
            self._stop_requested = True

        handlers = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turns "out of memory" into a `TrainingError` that says which options lower it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "out of memory: lower --micro-batch-size (the result stays the same) or --max-length, or add "
            "--activation-checkpointing, --lora-r, or more processes with --strategy fsdp; --dry-run estimates each "
            f"({str(error).partition(chr(10))[0] or 'the host has no more'})"
        ) from None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
