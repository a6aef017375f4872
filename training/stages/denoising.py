"""The part of a stage that pre-training and SFT share: they differ in their samples, not in their objective."""

from collections.abc import Callable, Iterator
from typing import ClassVar, TypeVar

from torch import Tensor, nn

from llada_core.model.network import Network
from llada_core.model.published_training import PublishedTraining
from llada_core.model.shape import ModelShape
from training.data.batches import Batch
from training.data.samples import Samples
from training.errors import TrainingError
from training.evaluation.likelihood_bound import evaluate
from training.options.fields import DenoisingOptions
from training.stages.base import NoisyRow, Work
from training.stages.measurement import Conditions, Measurement
from training.stages.objective import Objective, corrupt_batch
from training.stages.practice import Workplace

_NOISE_LEVELS = 8

LengthT = TypeVar("LengthT", int, Tensor)


class Denoising:
    """A stage that learns to restore masked tokens; what it validates is the bound on the likelihood.

    Attributes:
        training: how the model's authors mask and weigh tokens, masked as much as the options say (`training_of`).
        block_length: that of the blocks of a block-causal model; None for others.
    """

    __slots__ = ()

    training: PublishedTraining
    block_length: int | None

    val_loss: ClassVar[str] = "NLL bound, nats per token; end padding is not counted"
    watched: ClassVar[str | None] = None
    work: ClassVar[Work] = Work()
    has_reference: ClassVar[bool] = False
    steps_per_batch: ClassVar[int] = 1

    def objective(self, model: Network, *, seed: int, reference: Callable[[], Network]) -> nn.Module:
        """See `Stage`."""
        return Objective(model, mask_id=model.special_tokens.mask_id, seed=seed, noise=self.training)

    def practice(self, objective: nn.Module, workplace: Workplace) -> None:
        """See `Stage`: none."""

    def noisy_rows(self, batch: Batch, *, mask_id: int, seed: int) -> Iterator[NoisyRow]:
        """See `Stage`."""
        corrupted, _, p_B = corrupt_batch(batch, mask_id=mask_id, seed=seed, training=self.training)
        for row, p in enumerate(p_B.tolist()):
            sample, start = int(batch.samples_B[row]), int(batch.target_starts_B[row])
            yield NoisyRow(
                f"sample {sample}", batch.tokens_BL[row].tolist(), corrupted.tokens_BL[row].tolist(), start, p
            )

    def validate(self, objective: nn.Module, samples: Samples, conditions: Conditions) -> Measurement | None:
        """See `Stage`."""
        assert isinstance(objective, Objective)
        evaluation = evaluate(
            objective.model,
            samples,
            num_samples=conditions.num_samples,
            noise_levels=_NOISE_LEVELS,
            seed=conditions.seed,
            world=conditions.world,
            is_stopping=conditions.is_stopping,
        )
        if evaluation is None:
            return None
        figures = {
            "val_loss_standard_error": evaluation.standard_error,
            "val_loss_by_noise_level": evaluation.by_noise_level,
        }
        return Measurement(evaluation.nll, figures, f"NLL bound {evaluation} nats per token")


def training_of(options: DenoisingOptions, shape: ModelShape) -> PublishedTraining:
    """The published training, with as much masked as the options say.

    Raises:
        TrainingError: the least ratio is above the greatest, of which one may be the published one.
    """
    try:
        return shape.training.within(options.min_mask_ratio, options.max_mask_ratio)
    except ValueError as error:
        raise TrainingError(f"min_mask_ratio and max_mask_ratio: {error}") from error


def in_whole_blocks(length: LengthT, block_length: int | None) -> LengthT:
    """The least length of whole blocks that is not below `length`: the sampler, too, denoises none but whole blocks."""
    return length if block_length is None else -(-length // block_length) * block_length
