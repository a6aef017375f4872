"""A stage: everything that one kind of training does differently. Data, loop and checkpoints are the same for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import nn

from llada_core.diffusion.loss import RowLoss, cross_entropy
from llada_core.model.network import Network
from llada_core.sampling.params import GenerationParams
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import Batch, Batching, BatchPlanner
from training.data.samples import Samples
from training.data.shards import Encoder, Shard
from training.stages.measurement import Conditions, Measurement
from training.stages.practice import Practice, Workplace


@dataclass(frozen=True, slots=True)
class NoisyRow:
    """A row as the model computes it, for people to look at.

    Attributes:
        name: which sample it is, or which part of one.
        target_start: the position before which nothing is masked.
        noise_level: the probability with which its targets are masked.
    """

    name: str
    clean: list[int]
    noisy: list[int]
    target_start: int
    noise_level: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a model computes for a sample, by which a dry run counts memory.

    Attributes:
        rows: the rows that go through the model.
        row_loss: what the objective takes of the logits at each masked position.
        answering: what the model does before a step; None if it only trains.
    """

    rows: int = 1
    row_loss: RowLoss = cross_entropy
    answering: "Answering | None" = None


@dataclass(frozen=True, slots=True)
class Answering:
    """Canvases that a model fills at once, without gradients, as long as a row of training each."""

    num_canvases: int
    params: GenerationParams


class Stage(Protocol):
    """A kind of training; implementations are frozen dataclasses of its settings.

    Attributes:
        name: the stage's name in checkpoints; a run resumes only checkpoints of its own stage.
        required_tokens: special tokens that the tokenizer must have.
        val_loss: what the validation loss is, for people.
        watched: the figure that tells how well it goes, where the loss does not; in validation its name begins with
            `val_`.
    """

    name: ClassVar[str]
    required_tokens: ClassVar[Sequence[str]]
    val_loss: ClassVar[str]
    watched: ClassVar[str | None]

    @property
    def has_reference(self) -> bool:
        """Whether the objective holds a second network."""
        ...

    @property
    def steps_per_batch(self) -> int:
        """The steps in a row that train on the same samples."""
        ...

    @property
    def row_lengths(self) -> Mapping[str, int]:
        """The options that bound a row's length, each at most the model's."""
        ...

    @property
    def work(self) -> Work:
        """What the model computes for a sample."""
        ...

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> Encoder:
        """The encoder that turns records into samples."""
        ...

    def samples(self, shards: Sequence[Shard]) -> Samples:
        """The samples in the tokens of `shards`."""
        ...

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        """The planner that lays out samples as the rows of each step: cut or padded, and with their targets."""
        ...

    def objective(self, model: Network, *, seed: int, reference: Callable[[], Network]) -> nn.Module:
        """The loss around `model`: a module whose forward turns a `Batch` into a `BatchLoss`.

        Args:
            reference: makes a frozen copy of the model as the run starts from it, for objectives that compare with it.
        """
        ...

    def practice(self, objective: nn.Module, workplace: Workplace) -> Practice | None:
        """The work of the model before a step; None for a stage whose samples are all that a step needs."""
        ...

    def noisy_rows(self, batch: Batch, *, mask_id: int, seed: int) -> Iterator[NoisyRow]:
        """The rows that the objective makes of a batch; of many draws, one."""
        ...

    def validate(self, objective: nn.Module, samples: Samples, conditions: Conditions) -> Measurement | None:
        """Measure held-out samples with the objective's networks; None if the conditions ended it.

        The networks' methods may be called, but not the objective itself, which processes only call together.
        """
        ...

    def prompt(self, text: str) -> str | list[Message]:
        """A prompt in the form that a model of this stage is trained on."""
        ...
