"""Pre-training: packed documents, of which every token is a target (arXiv:2502.09992, section 2.2)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from llada_core.counter_noise import Purpose, uniform
from llada_core.model.published_training import LLADA_TRAINING, PublishedTraining
from llada_core.model.shape import ModelShape
from llada_core.text.tokenizer import Tokenizer
from training.data.batches import NORMALIZERS, Batching, BatchPlanner, LossNorm, RowLayout, StepRows
from training.data.formats import Document, ReadReport, read_documents
from training.data.samples import PackedDocuments, Samples
from training.data.shards import Encoded, Encoder, Shard, encode_documents
from training.data.sources import Source
from training.options.fields import PretrainOptions
from training.stages.denoising import Denoising, in_whole_blocks, training_of

# LLaDA, GUIDELINES "Pre-training": 1 % of the data is cut to a random length. There per batch, here per sample.
_SHARE_OF_CUT_SAMPLES = 0.01


@dataclass(frozen=True, slots=True)
class Pretraining(Denoising):
    """Samples of `max_length` tokens; packed documents may attend to one another or only to themselves.

    Attributes:
        loss_norm: what has equal weight, every token of a batch or every sample.
        training, block_length: see `Denoising`.
    """

    max_length: int
    attend_across_documents: bool = True
    loss_norm: LossNorm = "token"
    training: PublishedTraining = LLADA_TRAINING
    block_length: int | None = None

    name: ClassVar[str] = "PretrainOptions"  # in checkpoints since the first version
    required_tokens: ClassVar[Sequence[str]] = ()

    @classmethod
    def from_options(cls, options: PretrainOptions, shape: ModelShape) -> "Pretraining":
        assert options.max_length is not None
        return cls(
            options.max_length,
            options.attend_across_documents,
            options.loss_norm,
            training_of(options, shape),
            shape.block_length,
        )

    @property
    def row_lengths(self) -> Mapping[str, int]:
        return {"max_length": self.max_length}

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> "DocumentEncoder":
        return DocumentEncoder(tokenizer, eos_id=eos_id)

    def samples(self, shards: Sequence[Shard]) -> Samples:
        return PackedDocuments(shards, max_length=self.max_length, attend_across_documents=self.attend_across_documents)

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        def lay_out(rows: StepRows) -> RowLayout:
            return _cut_some(rows, seed=batching.seed, block_length=self.block_length)

        return BatchPlanner(samples, batching, lay_out, NORMALIZERS[self.loss_norm])

    def prompt(self, text: str) -> str:
        """A text to continue."""
        return text


class DocumentEncoder(Encoder):
    """A document's tokens and EOS, which packing keeps."""

    name = "documents"

    def read(self, source: Source, report: ReadReport) -> Iterator[Document]:
        return read_documents(source.records(), report)

    def encode(self, items: Sequence[Document]) -> Iterator[Encoded]:
        for item, ids in enumerate(encode_documents(self.tokenizer, items)):
            yield Encoded([*ids, self.eos_id], item=item)


def _cut_some(rows: StepRows, *, seed: int, block_length: int | None) -> RowLayout:
    """Cut one sample in a hundred to a random length from 1, or one block, to its own; padding is not a target."""
    chosen_B, fraction_B = (uniform(seed, Purpose.LENGTH_CUT, rows.samples_B, rows.epochs_B, draw) for draw in (0, 1))
    cut_B = 1 + (fraction_B * rows.lengths_B).long()
    cut_B = in_whole_blocks(cut_B, block_length).minimum(rows.lengths_B)
    stops_B = torch.where(chosen_B < _SHARE_OF_CUT_SAMPLES, cut_B, rows.lengths_B)
    return RowLayout(stops_B, int(stops_B.max()))
