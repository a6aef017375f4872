"""The training loop, the same for pre-training and SFT; they differ in their samples and in the loss's normaliser."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llada_core.diffusion import (
    corrupt,
    corruption_draws,
    denoising_loss,
    noise_levels,
    pretrain_normalizer,
    sft_normalizer,
)
from llada_core.model import LLaDAModelLM
from llada_core.special_tokens import SpecialTokens
from training.data.samples import Batch, Sample, batches
from training.optimizer import build_optimizer, learning_rate_factor

_LOG_STEPS = 20


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to try."""


@dataclass(frozen=True, slots=True)
class TrainingParams:
    """What a run is made of, apart from model and data. Lengths in tokens, sizes in rows, steps of the optimizer."""

    objective: Literal["pretrain", "sft"]
    max_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    decay_fraction: float = 0.2
    gradient_clip: float = 1.0
    seed: int = 0
    save_steps: int = 500
    pad_to: int | None = None


class Trainer:
    """Trains `model` in place and keeps its newest checkpoint in `output_dir`/checkpoints."""

    def __init__(
        self,
        model: LLaDAModelLM,
        samples: Sequence[Sample],
        params: TrainingParams,
        *,
        special_tokens: SpecialTokens,
        output_dir: Path,
        log: Callable[[str], None] = print,
    ) -> None:
        self.model = model
        self.samples = samples
        self.params = params
        self.special_tokens = special_tokens
        self.checkpoints = output_dir / "checkpoints"
        self.metrics_file = output_dir / "metrics.jsonl"
        self.log = log
        self.optimizer = build_optimizer(model, params.learning_rate)
        self.step = 0
        self._stop_requested = False

    def run(self) -> None:
        """Train to `max_steps`. SIGINT and SIGTERM save a checkpoint and leave with `TrainingError`."""
        previous = {number: signal.signal(number, self._request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._loop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def resume(self) -> bool:
        """Continue from the newest complete checkpoint; False where there is none."""
        found = sorted(self.checkpoints.glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-")))
        if not found:
            return False
        state = torch.load(found[-1] / "optimizer.pt", weights_only=True)
        if state["params"] != asdict(self.params):
            raise TrainingError(f"{found[-1].name} was trained with other parameters: {state['params']}")
        self.model.load_state_dict(load_file(found[-1] / "model.safetensors"))
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        return True

    def _loop(self) -> None:
        params = self.params
        self.model.train()
        stream = batches(
            self.samples,
            batch_size=params.batch_size,
            seed=params.seed,
            eos_id=self.special_tokens.eos_id,
            pad_to=params.pad_to,
            first_step=self.step,
        )
        started, first_step, tokens, window_loss = time.monotonic(), self.step, 0, []
        while self.step < params.max_steps:
            batch = next(stream)
            window_loss.append(self._train_step(batch))
            tokens += batch.tokens_BL.numel()
            self.step += 1
            if self.step % _LOG_STEPS == 0 or self.step == params.max_steps:
                elapsed = time.monotonic() - started
                self._report(torch.stack(window_loss), tokens / elapsed, elapsed / (self.step - first_step))
                window_loss = []
            if self._stop_requested or self.step % params.save_steps == 0 or self.step == params.max_steps:
                self._require_finite(*self.model.parameters())
                self.save()
            if self._stop_requested:
                raise TrainingError(f"stopped by a signal after step {self.step}; --resume continues from there")

    def _train_step(self, batch: Batch) -> Tensor:
        params = self.params
        factor = learning_rate_factor(
            self.step,
            max_steps=params.max_steps,
            warmup_steps=params.warmup_steps,
            decay_fraction=params.decay_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = params.learning_rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self._loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), params.gradient_clip, error_if_nonfinite=False)
        self.optimizer.step()
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        seed, length = self.params.seed, batch.tokens_BL.shape[1]
        corrupted = corrupt(
            batch.tokens_BL,
            noise_levels(seed, batch.samples_B, batch.epoch),
            corruption_draws(seed, batch.samples_B, batch.epoch, length),
            mask_id=self.special_tokens.mask_id,
            maskable_BL=torch.arange(length) >= batch.prompt_lengths_B.unsqueeze(1),
        )
        if self.params.objective == "pretrain":
            normalizer_B = pretrain_normalizer(*batch.tokens_BL.shape)
        else:
            normalizer_B = sft_normalizer(length - batch.prompt_lengths_B)
        return denoising_loss(self.model, batch.tokens_BL, corrupted, normalizer_B)

    def _report(self, losses: Tensor, tokens_per_second: float, seconds_per_step: float) -> None:
        self._require_finite(losses)
        loss = losses.mean().item()
        remaining = (self.params.max_steps - self.step) * seconds_per_step
        self.log(
            f"step {self.step}/{self.params.max_steps}  loss {loss:.4f}  "
            f"{tokens_per_second:,.0f} tokens/s  {remaining / 60:.1f} min left"
        )
        record = {"step": self.step, "loss": loss, "tokens_per_second": round(tokens_per_second)}
        with self.metrics_file.open("a") as metrics:
            metrics.write(json.dumps(record) + "\n")

    def _require_finite(self, *tensors: Tensor) -> None:
        if not all(torch.isfinite(tensor).all() for tensor in tensors):
            raise TrainingError(
                f"loss or weights are not finite at step {self.step}; the newest checkpoint in {self.checkpoints} is "
                "from before. Try a lower --learning-rate or more --warmup-steps, then --resume"
            )

    def save(self) -> None:
        """Write checkpoints/step-<n> aside, rename it, then drop the older ones."""
        folder = self.checkpoints / f"step-{self.step}"
        aside = self.checkpoints / f"incomplete-{self.step}"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        save_file(self.model.state_dict(), aside / "model.safetensors")
        state = {"optimizer": self.optimizer.state_dict(), "step": self.step, "params": asdict(self.params)}
        torch.save(state, aside / "optimizer.pt")
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)
        for other in self.checkpoints.iterdir():
            if other != folder:
                shutil.rmtree(other)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_requested = True
