"""Supervised fine-tuning: the answer and its EOS padding are targets, the prompt is never masked (section 2.3).

Of a filled gap only the middle is a target. Nothing pads it: a canvas with a gap ends with the text after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import ClassVar, Literal

import torch

from llada_core.counter_noise import Purpose, uniform
from llada_core.model.published_training import LLADA_TRAINING, PublishedTraining
from llada_core.model.shape import ModelShape
from llada_core.text.special_tokens import BOS_TOKEN, EOT_TOKEN
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import NORMALIZERS, Batching, BatchPlanner, LossNorm, RowLayout, StepRows
from training.data.dialogues import Dialogue, DialogueRules
from training.data.formats import Document, FilledGap, Item, ReadReport, read_dialogues
from training.data.samples import Dialogues, Samples
from training.data.shards import Encoded, Encoder, Shard, encode_documents
from training.data.sources import Source
from training.errors import DataError
from training.options.fields import SFTOptions
from training.stages.chat import Chat, writes_thinking
from training.stages.denoising import Denoising, in_whole_blocks, training_of

Overlong = Literal["drop", "truncate"]

_SHARE_OF_PADDED_BATCHES = 1 / 3


@dataclass(frozen=True, slots=True)
class SFT(Chat, Denoising):
    """Dialogues, one sample for every assistant turn that is a target.

    Attributes:
        overlong: what happens to samples over `max_length`.
        rules: what a dialogue means where its record leaves it open.
        pad_to: None pads a batch to its longest row. A length lets one batch in three be padded further, up to it:
            short answers then also occur on long canvases, which is what the sampler will show the model.
        loss_norm: what has equal weight, every token of a batch or every sample.
        training, block_length: see `Denoising`. Rows have whole blocks.
    """

    max_length: int
    overlong: Overlong = "drop"
    pad_to: int | None = None
    rules: DialogueRules = field(default_factory=DialogueRules)
    loss_norm: LossNorm = "sequence"
    training: PublishedTraining = LLADA_TRAINING
    block_length: int | None = None

    name: ClassVar[str] = "SFTOptions"  # in checkpoints since the first version

    @classmethod
    def from_options(cls, options: SFTOptions, shape: ModelShape) -> "SFT":
        assert options.max_length is not None
        return cls(
            options.max_length,
            options.overlong,
            options.pad_to,
            DialogueRules(options.train_on, options.allow_empty_answers),
            options.loss_norm,
            training_of(options, shape),
            shape.block_length,
        )

    @property
    def row_lengths(self) -> Mapping[str, int]:
        lengths = {"max_length": self.max_length, "pad_to": self.pad_to or 0}
        return {name: in_whole_blocks(length, self.block_length) for name, length in lengths.items()}

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> "DialogueEncoder":
        return DialogueEncoder(
            tokenizer,
            eos_id=eos_id,
            max_length=self.max_length,
            overlong=self.overlong,
            rules=self.rules,
            fills_gaps=self.block_length is None,
        )

    def samples(self, shards: Sequence[Shard]) -> Samples:
        return Dialogues(shards)

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        def lay_out(rows: StepRows) -> RowLayout:
            return _pad_answers(rows, pad_to=self.pad_to, seed=batching.seed, block_length=self.block_length)

        return BatchPlanner(samples, batching, lay_out, NORMALIZERS[self.loss_norm])


class DialogueEncoder(Encoder):
    """A sample for every turn that is a target: the history is the prompt, the reply with EoT and EOS the answer.

    A document is all answer: mixing in plain text keeps a model able to continue one.
    """

    name = "dialogues"

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        eos_id: int,
        max_length: int,
        overlong: Overlong,
        rules: DialogueRules | None = None,
        fills_gaps: bool = True,
    ) -> None:
        """
        Args:
            fills_gaps: whether the model sees what follows a gap.
        """
        super().__init__(tokenizer, eos_id=eos_id)
        self._max_length = max_length
        self._overlong = overlong
        self._rules = rules or DialogueRules()
        self._fills_gaps = fills_gaps

    @property
    def identity(self) -> list[object]:
        return [*super().identity, self._max_length, self._overlong, *astuple(self._rules)]

    def read(self, source: Source, report: ReadReport) -> Iterator[Item]:
        has_thinking = writes_thinking(self.tokenizer)
        return read_dialogues(source.records(), report, self._rules, writes_thinking=has_thinking)

    def encode(self, items: Sequence[Item]) -> Iterator[Encoded]:
        yield from self._documents([(number, item) for number, item in enumerate(items) if isinstance(item, tuple)])
        yield from self._gaps([(number, item) for number, item in enumerate(items) if isinstance(item, FilledGap)])
        yield from self._answers([(number, item) for number, item in enumerate(items) if isinstance(item, list)])

    def _documents(self, documents: Sequence[tuple[int, Document]]) -> Iterator[Encoded]:
        encoded = encode_documents(self.tokenizer, [document for _, document in documents])
        for (number, _), ids in zip(documents, encoded, strict=True):
            yield from self._fit(Encoded([*ids, self.eos_id], item=number))

    def _gaps(self, gaps: Sequence[tuple[int, FilledGap]]) -> Iterator[Encoded]:
        if gaps and not self._fills_gaps:
            raise DataError(
                "a record has prefix, middle and suffix; the model attends block by block, and does not see what "
                "follows a gap"
            )
        parts = iter(self.tokenizer.encode_batch([text for _, gap in gaps for text in astuple(gap)]))
        for number, _ in gaps:
            prefix, middle, suffix = next(parts), next(parts), next(parts)
            yield from self._fit(Encoded([*prefix, *middle, *suffix], len(prefix), len(suffix), number))

    def _answers(self, dialogues: Sequence[tuple[int, Dialogue]]) -> Iterator[Encoded]:
        self.num_without_target += sum(not any(turn.is_target for turn in dialogue) for _, dialogue in dialogues)
        answers = encode_answers(self.tokenizer, [dialogue for _, dialogue in dialogues], eos_id=self.eos_id)
        for sample in answers:
            yield from self._fit(replace(sample, item=dialogues[sample.item][0]))

    def _fit(self, sample: Encoded) -> Iterator[Encoded]:
        fitted = fit(sample, max_length=self._max_length, overlong=self._overlong)
        if fitted is None:
            self.num_dropped += 1
            return
        self.num_truncated += fitted is not sample
        yield fitted


def encode_answers(tokenizer: Tokenizer, dialogues: Sequence[Dialogue], *, eos_id: int) -> Iterator[Encoded]:
    """Encode every turn that is a target, with its dialogue's turns before it as the prompt.

    Raises:
        DataError: in the tokenizer's template, a conversation does not begin with the prompt for its last turn.
    """
    if tokenizer.has_template:
        for number, dialogue in enumerate(dialogues):
            yield from _in_template(tokenizer, dialogue, number, eos_id=eos_id)
        return
    bos_id, end_of_turn = (tokenizer.token_to_id(token) for token in (BOS_TOKEN, EOT_TOKEN))
    assert bos_id is not None and end_of_turn is not None
    # Not as `Tokenizer.encode_chat`, which trims: a completion keeps its spaces.
    contents = iter(tokenizer.encode_batch([turn.content for dialogue in dialogues for turn in dialogue]))
    for number, dialogue in enumerate(dialogues):
        history = [bos_id]
        for turn in dialogue:
            header = tokenizer.header(turn.role)
            ids = [*history, *header, *next(contents), end_of_turn]
            if turn.is_target:
                yield Encoded([*ids, eos_id], len(history) + len(header), item=number)
            history = ids


def _in_template(tokenizer: Tokenizer, dialogue: Dialogue, number: int, *, eos_id: int) -> Iterator[Encoded]:
    messages = [Message(turn.role, turn.content, thinking=turn.thinking) for turn in dialogue]
    for index, turn in enumerate(dialogue):
        if turn.is_target:
            prompt = tokenizer.encode_chat(messages[:index])
            ids = tokenizer.encode_chat(messages[: index + 1], add_generation_prompt=False)
            if ids[: len(prompt)] != prompt:
                raise DataError(
                    "the tokenizer's chat template writes an answer that does not follow its own prompt; give another"
                )
            yield Encoded([*ids, eos_id], len(prompt), item=number)


def fit(sample: Encoded, *, max_length: int, overlong: Overlong) -> Encoded | None:
    """Return a sample of at most `max_length` tokens: the same one, or a part of it; None if there is none."""
    num_over = len(sample.ids) - max_length
    if num_over <= 0:
        return sample
    # A prompt of `max_length` leaves no room for the answer, and a gap needs some of what follows it.
    has_no_room = sample.prompt_length >= max_length or 0 < sample.suffix_length <= num_over
    if overlong == "drop" or has_no_room:
        return None
    return replace(sample, ids=sample.ids[:max_length], suffix_length=max(0, sample.suffix_length - num_over))


def _pad_answers(rows: StepRows, *, pad_to: int | None, seed: int, block_length: int | None) -> RowLayout:
    """Pad to the longest row, or in one batch in three further; the padding of an answer is a target too."""
    length = int(rows.lengths_B.max())
    if pad_to is not None:
        chosen, fraction = (float(uniform(seed, Purpose.PADDING, rows.step, draw)) for draw in (0, 1))
        if chosen < _SHARE_OF_PADDED_BATCHES:
            length = max(length, int(pad_to * fraction))
    length = in_whole_blocks(length, block_length)
    stops_B = torch.where(rows.suffix_lengths_B > 0, rows.lengths_B - rows.suffix_lengths_B, length)
    return RowLayout(stops_B, length)
