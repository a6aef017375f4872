"""The training loop, the same for every stage, on one process or many.

A step: plan the batch → compute this process's rows in micro-batches → clip → AdamW. Nothing random has state: order
and noise follow from (seed, sample, epoch), so a checkpoint consists of weights, optimizer and step number.
"""

from contextlib import nullcontext

import torch
from torch import nn

from llada_core.model.network import Network
from training.options.fields import TrainingOptions
from training.run.checkpoints import Checkpoints, Learned
from training.run.optimizer import build_optimizers, set_learning_rate
from training.run.parallelize import ParallelModel
from training.run.plan import RunPlan
from training.run.report import Reporter
from training.run.stop_signal import StopSignal
from training.run.validation import Validation, ValidationHistory
from training.run.weight_average import WeightAverage
from training.run.window import Window, WindowSummary
from training.stages.objective import BatchLoss
from training.stages.practice import Practice


class Trainer:
    """Trains a model in place.

    Attributes:
        step: the number of optimizer steps done.
        max_steps: the number of steps of the whole run.
    """

    def __init__(
        self,
        parallel: ParallelModel,
        plan: RunPlan,
        options: TrainingOptions,
        *,
        checkpoints: Checkpoints,
        validation: Validation,
        practice: Practice | None,
        reporter: Reporter,
        watched: str | None,
    ) -> None:
        """
        Args:
            watched: see `Stage`.
        """
        self.step = 0
        self._parallel = parallel
        self._world = parallel.world
        self._planner = plan.planner
        self._schedule = plan.schedule
        self.max_steps = plan.max_steps
        self._options = options
        self._checkpoints = checkpoints
        self._validation = validation
        self._practice = practice
        self._reporter = reporter
        self._watched = watched
        optimizers = build_optimizers(parallel.model, options)
        average = None if options.ema_decay is None else WeightAverage(parallel.model, options.ema_decay)
        self._learned = Learned(parallel.model, optimizers, average)
        self._history = ValidationHistory(options.early_stopping)
        self._stop_signal = StopSignal(parallel.world)
        self._last_saved: int | None = None
        self._owes_validation = False
        self._window = Window()

    @property
    def model(self) -> Network:
        """The network that is trained; under FSDP2 its weights are sharded."""
        return self._parallel.model

    def resume(self) -> bool:
        """Continue from the newest checkpoint that is not damaged; False if there is none."""
        state = self._checkpoints.restore(self._learned, say=self._reporter.say)
        if state is None:
            return False
        self.step = self._last_saved = state.step
        self._history.losses = list(state.val_losses)
        # A signal skipped the validation of this step.
        self._owes_validation = state.val_loss is None and self._validation.has_loss and self._is_validated()
        return True

    def train(self) -> None:
        """Train to the last step. On SIGINT, SIGTERM or SIGHUP save a checkpoint and stop; on a second SIGINT exit.

        Raises:
            TrainingError: a signal stopped the run; a loss is not finite; a checkpoint cannot be written.
        """
        with self._stop_signal.listening(), self._reporter.run(first_step=self.step, max_steps=self.max_steps):
            is_first_validated = self.step == 0 and self._validation.has_loss
            if is_first_validated or self._practice is not None:
                plan = self._planner.plan(self.step)
                first = self._world.part_of(plan.num_rows).start
                self._parallel.prepare(self._planner.collate(plan, slice(first, first + 1)).to(self._world.device))
            if is_first_validated:
                # What the training starts from, to compare with.
                val_loss = self._validate()
                if val_loss is not None:
                    self._history.losses.append(val_loss)
                if self._stop_signal.is_set():
                    raise self._world.error("stopped by a signal before the first step")
            self._loop()

    def train_step(self) -> None:
        """Run one optimizer step."""
        plan = self._planner.plan(self.step)
        rows = self._world.part_of(plan.num_rows)
        # Before practice, which needs their memory.
        self.model.zero_grad(set_to_none=True)
        if self._practice is not None and self._practice.is_due(plan):
            with self._parallel.whole_weights(), self._parallel.autocast():
                whole = self._planner.collate(plan, slice(rows.start, rows.stop))
                self._practice.run(self.step, whole.to(self._world.device))
        size = self._options.micro_batch_size or len(rows)
        starts = range(rows.start, rows.stop, size)
        set_learning_rate(self._learned.optimizers, self._schedule.rate_at(self.step))
        step_loss = torch.zeros((), device=self._world.device)
        for start in starts:
            batch = self._planner.collate(plan, slice(start, min(start + size, rows.stop))).to(self._world.device)
            with self._parallel.accumulation(is_last=start == starts[-1]):
                with self._parallel.autocast():
                    part: BatchLoss = self._parallel.objective(batch)
                # DDP and FSDP2 average over the processes; the parts are meant to add up.
                (part.loss * self._world.size).backward()
            step_loss += part.loss.detach()
            self._window.add_figures(part)
        gradient_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._options.gradient_clip)
        for optimizer in self._learned.optimizers:
            optimizer.step()
        self._window.add_step(step_loss, gradient_norm, num_tokens=plan.num_tokens)
        self.step += 1
        if self._learned.average is not None:
            self._learned.average.update(self.step)

    def log_window(self) -> None:
        """Report the steps since the last record.

        Raises:
            TrainingError: the loss or gradient of one of them is not finite.
        """
        window, self._window = self._window, Window()
        if not window.losses:
            return
        summary = window.summary(self._world)
        self._require_finite(summary)
        learning_rate = self._schedule.rate_at(self.step - 1)
        record = {
            "step": self.step,
            "loss": summary.losses.mean().item(),
            "lr": learning_rate,
            "gradient_norm": summary.gradient_norms[-1].item(),
            "tokens_per_second": summary.tokens_per_second,
            **summary.figures,
        }
        remaining = (self.max_steps - self.step) * summary.seconds / len(summary.losses)
        loss, speed = f"loss {record['loss']:.4f}", f"lr {learning_rate:.2e}  {summary.tokens_per_second:,} tokens/s"
        watched = "" if self._watched is None else f"  {self._watched} {record[self._watched]:.3f}"
        line = f"step {self.step}/{self.max_steps}  {loss}{watched}  {speed}  {_duration(remaining)} left"
        self._reporter.log(record, line, figures=loss + (watched or f"  {speed}"))

    def _loop(self) -> None:
        self._window = Window()
        if self._owes_validation:
            self._end_step()
        while self.step < self.max_steps:
            if self._history.has_stopped_falling:
                self._reporter.say(f"stopping early after step {self.step}: {self._history.summary}")
                if self._last_saved is None:
                    self._save(self._history.losses[-1])
                break
            self.train_step()
            if self._is_due(self._options.log_steps):
                self.log_window()
            self._end_step()

    def _end_step(self) -> None:
        """Validate, save and stop, each if it is due."""
        # Whoever stops a run should not have to wait for a validation.
        val_loss = self._validate() if self._is_validated() and not self._stop_signal.is_set() else None
        is_stopping = self._stop_signal.is_set()
        is_written = False
        if val_loss is not None:
            self._history.losses.append(val_loss)
            is_written = self._options.early_stopping is not None and self._history.is_at_best
        if self._is_due(self._options.save_steps) or is_stopping or self._owes_validation or is_written:
            self._save(val_loss)
        self._reporter.advance(self.step)
        if is_stopping:
            raise self._world.error(f"stopped by a signal after step {self.step}; --resume continues from there")
        self._owes_validation = False

    def _is_validated(self) -> bool:
        return self._is_due(self._options.eval_steps or self._options.save_steps)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.max_steps

    def _validate(self) -> float | None:
        """The validation loss; None without validation data."""
        if self._validation.is_empty:
            return None
        self.log_window()
        with nullcontext() if self._learned.average is None else self._learned.average.in_use():
            val_loss = self._validation.run(
                self._parallel, step=self.step, max_steps=self.max_steps, is_stopping=self._stop_signal.is_set
            )
        self._window.restart_clock()
        return val_loss

    def _save(self, val_loss: float | None) -> None:
        self.log_window()
        self._checkpoints.save(self._learned, step=self.step, val_loss=val_loss, val_losses=self._history.losses)
        self._last_saved = self.step

    def _require_finite(self, summary: WindowSummary) -> None:
        if summary.first_bad_step is not None:
            step = self.step - len(summary.losses) + summary.first_bad_step + 1
            last = "none yet" if self._last_saved is None else f"step-{self._last_saved}"
            raise self._world.error(
                f"loss or gradient is not finite in step {step}; last good checkpoint: {last}. Try a lower "
                "--learning-rate, more --warmup-steps or --dtype float32 in a new --output-dir, from the start or from "
                "that checkpoint's export"
            )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
