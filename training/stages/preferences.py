"""Preferences: of two answers to a prompt, the model is to prefer the chosen one (DPO; VRPO, arXiv:2505.19223).

A pair is one sample: the row of the prompt with the chosen answer, then the same with the rejected one. Order, mixtures
and hold-out therefore keep pairs together. The shorter row is padded with EOS to the length of the other, and the
padding is scored: else the number of masks would say which of the two answers it is, and only at its length would the
model come to prefer one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from llada_core.diffusion.loss import row_normalizer
from llada_core.diffusion.preference import PreferenceLoss
from llada_core.model.network import Network
from llada_core.model.shape import ModelShape
from llada_core.text.tokenizer import Tokenizer
from training.data.batches import Batch, Batching, BatchPlanner, RowLayout, StepRows
from training.data.dialogues import DialogueRules, Preference
from training.data.formats import ReadReport, read_preferences
from training.data.samples import Pairs, Samples
from training.data.shards import Encoded, Encoder, Shard
from training.data.sources import Source
from training.options.fields import DPOOptions
from training.stages.base import NoisyRow, Work
from training.stages.chat import Chat, writes_thinking
from training.stages.denoising import in_whole_blocks
from training.stages.measurement import Conditions, Measurement
from training.stages.practice import Workplace
from training.stages.preference_objective import PreferenceObjective, Sampling
from training.stages.sft import Overlong, encode_answers, fit

# The epoch of held-out pairs: their draws are others than those of training, and the same in every validation.
_VALIDATION_EPOCH = -1


@dataclass(frozen=True, slots=True)
class Preferences(Chat):
    """Pairs of answers, compared with a frozen copy of the model that the run starts from.

    Attributes:
        max_length: tokens of a prompt with either of its answers.
        overlong: what happens to pairs of which an answer is over `max_length`.
        sampling: how the bound on an answer's likelihood is estimated.
        beta, loss: see `preference_losses`.
        rpo_alpha: weight of the chosen answer's negative log-likelihood, per token (RPO, arXiv:2404.19733).
    """

    max_length: int
    overlong: Overlong = "drop"
    rules: DialogueRules = field(default_factory=DialogueRules)
    sampling: Sampling = field(default_factory=Sampling)
    beta: float = 0.2
    loss: PreferenceLoss = "dpo"
    rpo_alpha: float = 0.0

    name: ClassVar[str] = "dpo"
    val_loss: ClassVar[str] = "preference loss"
    watched: ClassVar[str | None] = "reward_accuracy"
    has_reference: ClassVar[bool] = True
    steps_per_batch: ClassVar[int] = 1

    @classmethod
    def from_options(cls, options: DPOOptions, shape: ModelShape) -> "Preferences":
        assert options.max_length is not None
        return cls(
            options.max_length,
            options.overlong,
            DialogueRules(allow_empty_answers=options.allow_empty_answers),
            Sampling(options.mc_num, stratified=options.stratified_noise, block_length=shape.block_length),
            options.beta,
            options.loss,
            options.rpo_alpha,
        )

    @property
    def row_lengths(self) -> Mapping[str, int]:
        return {"max_length": in_whole_blocks(self.max_length, self.sampling.block_length)}

    @property
    def work(self) -> Work:
        return Work(2 * self.sampling.num_draws)

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> "PreferenceEncoder":
        return PreferenceEncoder(
            tokenizer,
            eos_id=eos_id,
            max_length=self.max_length,
            overlong=self.overlong,
            rules=self.rules,
            block_length=self.sampling.block_length,
        )

    def samples(self, shards: Sequence[Shard]) -> Samples:
        return Pairs(shards)

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        return BatchPlanner(samples, batching, _side_by_side, row_normalizer)

    def objective(self, model: Network, *, seed: int, reference: Callable[[], Network]) -> nn.Module:
        """See `Stage`."""
        return PreferenceObjective(
            model,
            reference(),
            sampling=self.sampling,
            beta=self.beta,
            loss=self.loss,
            rpo_alpha=self.rpo_alpha,
            seed=seed,
        )

    def practice(self, objective: nn.Module, workplace: Workplace) -> None:
        """See `Stage`: none."""

    def noisy_rows(self, batch: Batch, *, mask_id: int, seed: int) -> Iterator[NoisyRow]:
        """See `Stage`; the first draw of each answer."""
        answers, draws, corrupted = self.sampling.of(batch, mask_id=mask_id, seed=seed)
        for pair, sample in enumerate(batch.samples_B.tolist()):
            for side, name in enumerate(("chosen", "rejected")):
                row = side * len(batch.samples_B) + pair
                clean, noisy = (
                    tokens_L[: answers.lengths[row]].tolist()
                    for tokens_L in (answers.tokens_BL[row], corrupted.tokens_BL[row * self.sampling.num_draws])
                )
                level, start = float(draws.levels_BN[row, 0]), int(answers.starts_B[row])
                yield NoisyRow(
                    f"sample {sample}, {name}, draw 1 of {self.sampling.num_draws}", clean, noisy, start, level
                )

    def validate(self, objective: nn.Module, samples: Samples, conditions: Conditions) -> Measurement | None:
        """See `Stage`; every process measures its share of the pairs, one by one."""
        assert isinstance(objective, PreferenceObjective)
        batching = Batching(1, seed=conditions.seed, eos_id=objective.model.special_tokens.eos_id)
        planner = self.planner(samples, batching)

        def measure(index: int) -> list[float]:
            plan = planner.plan_rows(0, np.array([index]), np.array([_VALIDATION_EPOCH]))
            with torch.no_grad():
                rewards = objective.rewards(planner.collate(plan, slice(None)).to(conditions.world.device))
            loss, margin = float(objective.losses(rewards)), float(rewards.margins_B)
            return [1, loss, loss**2, float(rewards.accuracies_B), margin]

        # Pairs, losses, their squares, preferred answers, margins.
        sums = conditions.sums(len(samples), measure, width=5)
        return None if sums is None else _measurement(*sums)


class PreferenceEncoder(Encoder):
    """A pair's two rows of one length: the sample's prompt is that of the first, its suffix the whole second row."""

    name = "preferences"

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        eos_id: int,
        max_length: int,
        overlong: Overlong,
        rules: DialogueRules,
        block_length: int | None = None,
    ) -> None:
        """
        Args:
            block_length: rows are padded to whole blocks of this length; None for no padding beyond the longer answer.
        """
        super().__init__(tokenizer, eos_id=eos_id)
        self._max_length = max_length
        self._overlong = overlong
        self._rules = rules
        self._block_length = block_length

    @property
    def identity(self) -> list[object]:
        blocks = () if self._block_length is None else (self._block_length,)
        return [*super().identity, self._max_length, self._overlong, *astuple(self._rules), *blocks]

    def read(self, source: Source, report: ReadReport) -> Iterator[Preference]:
        has_thinking = writes_thinking(self.tokenizer)
        return read_preferences(source.records(), report, self._rules, writes_thinking=has_thinking)

    def encode(self, items: Sequence[Preference]) -> Iterator[Encoded]:
        dialogues = [dialogue for pair in items for dialogue in (pair.chosen, pair.rejected)]
        answers = encode_answers(self.tokenizer, dialogues, eos_id=self.eos_id)
        for number, pair in enumerate(zip(answers, answers, strict=True)):
            fitted = [fit(answer, max_length=self._max_length, overlong=self._overlong) for answer in pair]
            chosen, rejected = fitted
            # Cut, two answers may be the same.
            if chosen is None or rejected is None or chosen.ids == rejected.ids:
                self.num_dropped += 1
                continue
            self.num_truncated += chosen is not pair[0] or rejected is not pair[1]
            length = in_whole_blocks(max(len(chosen.ids), len(rejected.ids)), self._block_length)
            ids = [i for row in (chosen, rejected) for i in (*row.ids, *[self.eos_id] * (length - len(row.ids)))]
            yield Encoded(ids, chosen.prompt_length, length, number)


def _side_by_side(rows: StepRows) -> RowLayout:
    """The target of a pair is that of its first row; the objective finds the other by the pair's spans."""
    return RowLayout(rows.lengths_B - rows.suffix_lengths_B, int(rows.lengths_B.max()))


def _measurement(num_pairs: float, loss: float, squares: float, preferred: float, margin: float) -> Measurement:
    loss, squares, accuracy, margin = (total / num_pairs for total in (loss, squares, preferred, margin))
    error = None if num_pairs < 2 else (max(0.0, squares - loss**2) / (num_pairs - 1)) ** 0.5
    figures = {"val_loss_standard_error": error, "val_reward_accuracy": accuracy, "val_reward_margin": margin}
    around = "" if error is None else f" ± {error:.4f}"
    text = f"preference loss {loss:.4f}{around}, {accuracy:.1%} of the chosen answers preferred, margin {margin:.3f}"
    return Measurement(loss, figures, text)
