"""A stage: everything that one kind of training does differently. Data, loop and checkpoints are the same for all."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from torch import nn

from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import Batching, BatchPlanner
from training.data.samples import Samples
from training.data.shards import Encoder, Shard


class Stage(Protocol):
    """A kind of training; implementations are frozen dataclasses of its settings.

    Attributes:
        name: the stage's name in checkpoints; a run resumes only checkpoints of its own stage.
        required_tokens: special tokens that the tokenizer must have.
    """

    name: ClassVar[str]
    required_tokens: ClassVar[Sequence[str]]

    @property
    def row_lengths(self) -> Mapping[str, int]:
        """The options that bound a row's length, each at most the model's."""
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

    def objective(self, model: LLaDAModelLM, *, seed: int) -> nn.Module:
        """The loss around `model`: a module whose forward turns a `Batch` into a `BatchLoss`."""
        ...

    def prompt(self, text: str) -> str | list[Message]:
        """A prompt in the form that a model of this stage is trained on."""
        ...
