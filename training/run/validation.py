"""Validation during training: the stage's measurement of the validation data, and answers to `--eval-prompt`."""

from collections.abc import Callable

from llada_core import GenerationParams, generate
from llada_core.model.network import Network
from training.data.samples import Samples
from training.run.parallelize import ParallelModel
from training.run.report import Reporter
from training.run.start import Start
from training.stages.measurement import Conditions


class ValidationHistory:
    """The losses of a run's validations, that before its first step included, and whether they still fall.

    Args:
        patience: validations in a row without a lower loss after which they do not; None: they always may.
    """

    def __init__(self, patience: int | None) -> None:
        self._patience = patience
        self.losses: list[float] = []

    @property
    def is_at_best(self) -> bool:
        """Whether the last loss is lower than all before."""
        return all(self.losses[-1] < loss for loss in self.losses[:-1])

    @property
    def summary(self) -> str:
        """Why a run ends that has stopped falling."""
        if self.losses.index(min(self.losses)):
            return "the validation loss has stopped falling"
        return "the validation loss has never been lower than before the first step"

    @property
    def has_stopped_falling(self) -> bool:
        if self._patience is None or not self.losses:
            return False
        return len(self.losses) - 1 - self.losses.index(min(self.losses)) >= self._patience


class Validation:
    """Validates a run as its options ask."""

    def __init__(self, start: Start, samples: Samples | None, reporter: Reporter) -> None:
        self._stage = start.stage
        self._options = start.options
        self._tokenizer = start.model.tokenizer
        self._samples = samples
        self._reporter = reporter

    @property
    def has_loss(self) -> bool:
        """Whether there is validation data, so that `run` gives a loss."""
        return self._samples is not None

    @property
    def is_empty(self) -> bool:
        """Whether the run has neither validation data nor prompts."""
        return self._samples is None and not self._options.eval_prompt

    def run(
        self, parallel: ParallelModel, *, step: int, max_steps: int, is_stopping: Callable[[], bool]
    ) -> float | None:
        """Validate and report. Returns the loss, None without validation data or if stopped."""
        val_loss = None
        with parallel.whole_weights():
            if self._samples is not None:
                with parallel.autocast():
                    val_loss = self._loss(self._samples, parallel, step, max_steps, is_stopping)
            if not is_stopping():
                self._reporter.samples(step, self._answers(parallel.model))
        return val_loss

    def _loss(
        self, samples: Samples, parallel: ParallelModel, step: int, max_steps: int, is_stopping: Callable[[], bool]
    ) -> float | None:
        conditions = Conditions(
            self._options.eval_samples, self._options.seed, parallel.world, is_stopping, self._tokenizer
        )
        measured = self._stage.validate(parallel.unwrapped, samples, conditions)
        if measured is None:
            return None
        record = {"step": step, "val_loss": measured.loss, **measured.figures}
        self._reporter.log(record, f"step {step}/{max_steps}  validation {measured.text}")
        return measured.loss

    def _answers(self, model: Network) -> dict[str, str]:
        prompts = self._options.eval_prompt
        if not prompts:
            return {}
        model.eval()
        params = GenerationParams(gen_length=self._options.eval_gen_length)
        in_form = [self._stage.prompt(prompt) for prompt in prompts]
        results = generate(model, in_form, params, tokenizer=self._tokenizer)
        model.train()
        return {prompt: result.text or "" for prompt, result in zip(prompts, results, strict=True)}
