"""Learning from rewards (GRPO): of a model's answers to a prompt, those become likelier that earn more than others.

A sample is a prompt. Its record, by which answers are judged, lies behind it as the sample's suffix, a byte of JSON for
a token: so order, mixtures, hold-out and streams need not know of it, and no text is changed by a tokenizer.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from llada_core.diffusion.loss import row_normalizer
from llada_core.model.network import Network
from llada_core.model.shape import ModelShape
from llada_core.sampling.generate import MAX_BATCH_SIZE
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import Batch, Batching, BatchPlanner, RowLayout, StepRows
from training.data.formats import Question, ReadReport, read_questions
from training.data.samples import Dialogues, Samples
from training.data.shards import Encoded, Encoder, Shard
from training.data.sources import Source
from training.errors import TrainingError
from training.options.fields import GRPOOptions
from training.rewards import rewards_of
from training.stages.base import Answering, NoisyRow, Work
from training.stages.chat import Chat
from training.stages.denoising import in_whole_blocks
from training.stages.measurement import Conditions, Measurement
from training.stages.policy_objective import PolicyObjective, Updating
from training.stages.practice import Workplace
from training.stages.rollouts import Asked, Asking, Rollout, Rollouts

# Prompts that validation answers at once.
_PROMPTS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class GroupPolicy(Chat):
    """Prompts, several answers to each, and their rewards.

    Attributes:
        max_length: tokens of a prompt with the canvas of an answer.
        block_length: that of the blocks of a block-causal model; None for others.
    """

    max_length: int
    asking: Asking
    updating: Updating
    block_length: int | None = None

    name: ClassVar[str] = "grpo"
    val_loss: ClassVar[str] = "minus the mean reward of greedy answers"
    watched: ClassVar[str | None] = "reward"

    @classmethod
    def from_options(cls, options: GRPOOptions, shape: ModelShape) -> "GroupPolicy":
        """Build the stage.

        Raises:
            TrainingError: answers leave no room for a prompt; a reward's function cannot be imported.
        """
        assert options.max_length is not None
        if options.gen_length >= options.max_length:
            raise TrainingError(
                f"--gen-length is {options.gen_length}; it must be below --max-length, {options.max_length}, which "
                "counts the prompt too"
            )
        trained_at_once = (options.micro_batch_size or options.batch_size) * options.group_size
        asking = Asking(
            options.generation_params(seed=0),
            rewards_of(options.reward),
            options.group_size,
            options.scale_rewards,
            min(trained_at_once, MAX_BATCH_SIZE),
        )
        updating = Updating(
            options.estimator,
            options.prompt_masking,
            options.beta,
            options.clip,
            options.updates,
            options.gen_length,
        )
        return cls(options.max_length, asking, updating, shape.block_length)

    @property
    def has_reference(self) -> bool:
        return self.updating.beta > 0

    @property
    def steps_per_batch(self) -> int:
        return self.updating.updates

    @property
    def row_lengths(self) -> Mapping[str, int]:
        return {"max_length": in_whole_blocks(self.max_length, self.block_length)}

    @property
    def work(self) -> Work:
        answering = Answering(self.asking.batch_size, self.asking.params)
        return Work(self.asking.group_size * self.updating.num_views, answering=answering)

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> "QuestionEncoder":
        return QuestionEncoder(
            tokenizer,
            eos_id=eos_id,
            longest_prompt=self.max_length - self.updating.gen_length,
            needs_answer=any(reward.needs_answer for reward in self.asking.rewards),
        )

    def samples(self, shards: Sequence[Shard]) -> Samples:
        return Dialogues(shards)

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        return BatchPlanner(samples, batching, _prompts_and_records, row_normalizer)

    def objective(self, model: Network, *, seed: int, reference: Callable[[], Network]) -> nn.Module:
        """See `Stage`."""
        return PolicyObjective(model, reference() if self.has_reference else None, updating=self.updating, seed=seed)

    def practice(self, objective: nn.Module, workplace: Workplace) -> Rollouts:
        """See `Stage`."""
        assert isinstance(objective, PolicyObjective)
        return Rollouts(objective.model, self.asking, workplace, groups=objective.groups, measure=objective.measure)

    def noisy_rows(self, batch: Batch, *, mask_id: int, seed: int) -> Iterator[NoisyRow]:
        """See `Stage`; before a model has answered there is the canvas."""
        for asked in Asked.from_batch(batch):
            row = [*asked.ids, *[mask_id] * self.updating.gen_length]
            yield NoisyRow(f"sample {asked.key.sample}, the canvas of an answer", row, row, len(asked.ids), 1.0)

    def validate(self, objective: nn.Module, samples: Samples, conditions: Conditions) -> Measurement | None:
        """See `Stage`; every process answers its share of the prompts, each once at temperature 0."""
        assert isinstance(objective, PolicyObjective)
        world, num_samples = conditions.world, min(conditions.num_samples, len(samples))
        planner = self.planner(samples, Batching(1, seed=conditions.seed, eos_id=objective.model.special_tokens.eos_id))
        names = [reward.name for reward in self.asking.rewards]
        # Prompts, rewards, their squares, and the scores of each reward.
        sums = torch.zeros(3 + len(names), dtype=torch.float64)
        for first in range(0, num_samples, _PROMPTS_AT_ONCE * world.size):
            if conditions.is_stopping():
                return None
            places = range(first + world.rank, min(first + _PROMPTS_AT_ONCE * world.size, num_samples), world.size)
            if not places:
                continue
            indices = np.array([place * len(samples) // num_samples for place in places])
            plan = planner.plan_rows(0, indices, np.zeros_like(indices))
            prompts = list(Asked.from_batch(planner.collate(plan, slice(None))))
            for rollout in self.asking.greedily(objective.model, conditions.tokenizer, prompts):
                sums += _sums_of(rollout, names)
        return _measurement(world.sum(sums).tolist(), names)


class QuestionEncoder(Encoder):
    """A prompt as a sample without a target, whose suffix is the record's JSON, a byte a token.

    Args:
        longest_prompt: tokens over which a prompt is left out.
        needs_answer: a record without an `answer` cannot be used.
    """

    name = "questions"

    def __init__(self, tokenizer: Tokenizer, *, eos_id: int, longest_prompt: int, needs_answer: bool) -> None:
        super().__init__(tokenizer, eos_id=eos_id)
        self._longest_prompt = longest_prompt
        self._needs_answer = needs_answer

    @property
    def identity(self) -> list[object]:
        return [*super().identity, self._longest_prompt, self._needs_answer]

    def read(self, source: Source, report: ReadReport) -> Iterator[Question]:
        return read_questions(source.records(), report, needs_answer=self._needs_answer)

    def encode(self, items: Sequence[Question]) -> Iterator[Encoded]:
        for number, question in enumerate(items):
            ids = self.tokenizer.encode_chat([Message(turn.role, turn.content) for turn in question.prompt])
            if len(ids) > self._longest_prompt:
                self.num_dropped += 1
                continue
            turns = [{"role": turn.role, "content": turn.content} for turn in question.prompt]
            known = json.dumps({"prompt": turns, "record": question.record}, ensure_ascii=False).encode()
            yield Encoded([*ids, *known], len(ids), len(known), number)


def _prompts_and_records(rows: StepRows) -> RowLayout:
    """Nothing of a row is a target: it is a prompt, then its record."""
    return RowLayout(rows.lengths_B - rows.suffix_lengths_B, int(rows.lengths_B.max()))


def _sums_of(rollout: Rollout, names: Sequence[str]) -> torch.Tensor:
    scores = [rollout.scores[name] for name in names]
    return torch.tensor([1, rollout.reward, rollout.reward**2, *scores], dtype=torch.float64)


def _measurement(sums: Sequence[float], names: Sequence[str]) -> Measurement:
    num_prompts = sums[0]
    reward, squares, *scores = (total / num_prompts for total in sums[1:])
    error = None if num_prompts < 2 else (max(0.0, squares - reward**2) / (num_prompts - 1)) ** 0.5
    figures: dict[str, object] = {"val_reward": reward, "val_reward_standard_error": error}
    if len(names) > 1:
        figures |= {f"val_score/{name}": score for name, score in zip(names, scores, strict=True)}
    around = "" if error is None else f" ± {error:.4f}"
    return Measurement(-reward, figures, f"reward {reward:.4f}{around} of greedy answers")
