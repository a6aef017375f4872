"""Distillation for parallel decoding: a model learns from its own recorded answers to be sure of them sooner.

A sample is a prompt and the canvas of its answer. The steps that committed the canvas's tokens lie behind it as the
sample's suffix, so order, mixtures, hold-out and streams need not know of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from llada_core.diffusion.certainty import UNWRITTEN, certainty
from llada_core.diffusion.loss import row_normalizer
from llada_core.model.network import Network
from llada_core.model.shape import ModelShape
from llada_core.sampling.params import DEFAULT_BLOCK_LENGTH
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import Batch, Batching, BatchPlanner, RowLayout, StepRows
from training.data.formats import ReadReport
from training.data.samples import Pairs, Samples
from training.data.shards import Encoded, Encoder, Shard
from training.data.sources import Source
from training.data.trajectories import Learner, RecordedAnswer, read_trajectories
from training.errors import DataError
from training.options.fields import DistillOptions
from training.stages.base import NoisyRow, Work
from training.stages.certainty_objective import CertaintyObjective, Forcing
from training.stages.chat import Chat
from training.stages.denoising import in_whole_blocks
from training.stages.measurement import Conditions, Measurement
from training.stages.practice import Workplace

# The epoch of held-out answers: their states are others than those of training, and the same in every validation.
_VALIDATION_EPOCH = -1


@dataclass(frozen=True, slots=True)
class Distillation(Chat):
    """Answers that the model's sampler has written.

    Attributes:
        max_length: tokens of a prompt with its canvas.
    """

    max_length: int
    forcing: Forcing

    name: ClassVar[str] = "distill"
    val_loss: ClassVar[str] = "cross-entropy and weighted entropy, nats per masked token"
    watched: ClassVar[str | None] = "entropy"
    has_reference: ClassVar[bool] = False
    steps_per_batch: ClassVar[int] = 1

    @classmethod
    def from_options(cls, options: DistillOptions, shape: ModelShape) -> "Distillation":
        assert options.max_length is not None
        block_length = options.block_length or shape.block_length or DEFAULT_BLOCK_LENGTH
        is_block_causal = shape.block_length is not None
        forcing = Forcing(block_length, options.entropy_weight, options.entropy_temperature, is_block_causal)
        return cls(options.max_length, forcing)

    @property
    def row_lengths(self) -> Mapping[str, int]:
        return {"max_length": in_whole_blocks(self.max_length, self._whole_blocks)}

    @property
    def work(self) -> Work:
        return Work(row_loss=certainty(self.forcing.temperature))

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> "TrajectoryEncoder":
        return TrajectoryEncoder(tokenizer, eos_id=eos_id, max_length=self.max_length, block_length=self._whole_blocks)

    def samples(self, shards: Sequence[Shard]) -> Samples:
        return Pairs(shards)

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        return BatchPlanner(samples, batching, _canvases_and_steps, row_normalizer)

    def objective(self, model: Network, *, seed: int, reference: Callable[[], Network]) -> nn.Module:
        """See `Stage`."""
        return CertaintyObjective(model, forcing=self.forcing, seed=seed)

    def practice(self, objective: nn.Module, workplace: Workplace) -> None:
        """See `Stage`: none."""

    def noisy_rows(self, batch: Batch, *, mask_id: int, seed: int) -> Iterator[NoisyRow]:
        """See `Stage`."""
        trajectories, states = self.forcing.states(batch, mask_id=mask_id, seed=seed)
        for row, (sample, length) in enumerate(zip(batch.samples_B.tolist(), trajectories.lengths, strict=True)):
            clean, noisy = (part_BL[row, :length].tolist() for part_BL in (trajectories.tokens_BL, states.tokens_BL))
            yield NoisyRow(
                f"sample {sample}", clean, noisy, int(trajectories.starts_B[row]), float(states.p_mask_B[row])
            )

    def validate(self, objective: nn.Module, samples: Samples, conditions: Conditions) -> Measurement | None:
        """See `Stage`; every process measures its share of the answers, one by one."""
        assert isinstance(objective, CertaintyObjective)
        batching = Batching(1, seed=conditions.seed, eos_id=objective.model.special_tokens.eos_id)
        planner = self.planner(samples, batching)

        def measure(index: int) -> list[float]:
            plan = planner.plan_rows(0, np.array([index]), np.array([_VALIDATION_EPOCH]))
            with torch.no_grad():
                losses = objective.losses(planner.collate(plan, slice(None)).to(conditions.world.device))
            loss, parts = float(losses.losses_B), (losses.cross_entropies_B, losses.entropies_B, losses.accuracies_B)
            return [1, loss, loss**2, *map(float, parts)]

        # Answers, losses, their squares, cross-entropies, entropies, right guesses.
        sums = conditions.sums(len(samples), measure, width=6)
        return None if sums is None else _measurement(*sums)

    @property
    def _whole_blocks(self) -> int | None:
        """The length of the blocks to which canvases are filled up; None if they may end within one."""
        return self.forcing.block_length if self.forcing.counts_prompt else None


class TrajectoryEncoder(Encoder):
    """A prompt with its canvas, whose suffix is the step that committed each token, or UNWRITTEN."""

    name = "trajectories"

    def __init__(self, tokenizer: Tokenizer, *, eos_id: int, max_length: int, block_length: int | None = None) -> None:
        """
        Args:
            block_length: canvases go on to the end of a block of this length, as the sampler denoises whole ones; None
                if they do not.
        """
        super().__init__(tokenizer, eos_id=eos_id)
        self._max_length = max_length
        self._block_length = block_length

    @property
    def identity(self) -> list[object]:
        blocks = () if self._block_length is None else (self._block_length,)
        return [*super().identity, self._max_length, *blocks]

    def read(self, source: Source, report: ReadReport) -> Iterator[RecordedAnswer]:
        return read_trajectories(source.records(), report, Learner(self.tokenizer.mask_id, len(self.tokenizer)))

    def encode(self, items: Sequence[RecordedAnswer]) -> Iterator[Encoded]:
        for number, answer in enumerate(items):
            written = answer.trajectory
            prompt = self._prompt_ids(answer.prompt)
            steps = [UNWRITTEN if step is None else step for step in written.commit_steps]
            # The text had ended: had the sampler gone on, it would have filled the canvas with EOS.
            canvas = [
                self.eos_id if step == UNWRITTEN else token_id
                for token_id, step in zip(written.token_ids, steps, strict=True)
            ]
            self._require_same(answer, prompt)
            length = len(prompt) + len(canvas)
            num_missing = in_whole_blocks(length, self._block_length) - length
            canvas += [self.eos_id] * num_missing
            steps += [UNWRITTEN] * num_missing
            if length > self._max_length:
                self.num_dropped += 1
                continue
            yield Encoded([*prompt, *canvas, *steps], len(prompt), len(steps), number)

    def _prompt_ids(self, prompt: str | list[Message] | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        chat = [turn for turn in prompt if isinstance(turn, Message)]
        return self.tokenizer.encode_chat(chat) if chat else [one for one in prompt if isinstance(one, int)]

    def _require_same(self, answer: RecordedAnswer, prompt: Sequence[int]) -> None:
        if answer.prompt_length not in (None, len(prompt)):
            raise DataError(
                f"a recorded prompt had {answer.prompt_length} tokens and now has {len(prompt)}: {answer.prompt!r}; "
                "tools and settings of the chat template cannot be trained"
            )


def _canvases_and_steps(rows: StepRows) -> RowLayout:
    return RowLayout(rows.lengths_B - rows.suffix_lengths_B, int(rows.lengths_B.max()))


def _measurement(
    num_answers: float, loss: float, squares: float, cross_entropy: float, entropy: float, right: float
) -> Measurement:
    loss, squares, cross_entropy, entropy, accuracy = (
        total / num_answers for total in (loss, squares, cross_entropy, entropy, right)
    )
    error = None if num_answers < 2 else (max(0.0, squares - loss**2) / (num_answers - 1)) ** 0.5
    figures = {
        "val_loss_standard_error": error,
        "val_cross_entropy": cross_entropy,
        "val_entropy": entropy,
        "val_accuracy": accuracy,
    }
    around = "" if error is None else f" ± {error:.4f}"
    text = f"loss {loss:.4f}{around}, {accuracy:.1%} of the masked tokens guessed right, entropy {entropy:.4f} nats"
    return Measurement(loss, figures, text)
