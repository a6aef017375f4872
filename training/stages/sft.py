"""Supervised fine-tuning: the answer and its EOS padding are targets, the prompt is never masked (section 2.3).

Of a filled gap only the middle is a target. Nothing pads it: a canvas with a gap ends with the text after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import nn

from llada_core.counter_noise import Purpose, uniform
from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.text.special_tokens import BOS_TOKEN, END_HEADER_TOKEN, EOT_TOKEN, START_HEADER_TOKEN
from llada_core.text.tokenizer import Message, Tokenizer
from training.data.batches import Batching, BatchPlanner, RowLayout, StepRows
from training.data.dialogues import Dialogue, DialogueRules
from training.data.formats import Document, FilledGap, Item, ReadReport, read_dialogues
from training.data.samples import Dialogues, Samples
from training.data.shards import Encoded, Encoder, Shard, encode_documents
from training.data.sources import Source
from training.options.fields import SFTOptions
from training.stages.objective import Objective

Overlong = Literal["drop", "truncate"]

_SHARE_OF_PADDED_BATCHES = 1 / 3


@dataclass(frozen=True, slots=True)
class SFT:
    """Dialogues, one sample for every assistant turn that is a target.

    Attributes:
        overlong: what happens to samples over `max_length`.
        rules: what a dialogue means where its record leaves it open.
        pad_to: None pads a batch to its longest row. A length lets one batch in three be padded further, up to it:
            short answers then also occur on long canvases, which is what the sampler will show the model.
    """

    max_length: int
    overlong: Overlong = "drop"
    pad_to: int | None = None
    rules: DialogueRules = field(default_factory=DialogueRules)

    name: ClassVar[str] = "SFTOptions"  # in checkpoints since the first version
    required_tokens: ClassVar[Sequence[str]] = (START_HEADER_TOKEN, END_HEADER_TOKEN, EOT_TOKEN)

    @classmethod
    def from_options(cls, options: SFTOptions) -> "SFT":
        assert options.max_length is not None
        rules = DialogueRules(options.train_on, options.allow_empty_answers)
        return cls(options.max_length, options.overlong, options.pad_to, rules)

    @property
    def row_lengths(self) -> Mapping[str, int]:
        return {"max_length": self.max_length, "pad_to": self.pad_to or 0}

    def encoder(self, tokenizer: Tokenizer, *, eos_id: int) -> "DialogueEncoder":
        return DialogueEncoder(
            tokenizer, eos_id=eos_id, max_length=self.max_length, overlong=self.overlong, rules=self.rules
        )

    def samples(self, shards: Sequence[Shard]) -> Samples:
        return Dialogues(shards)

    def planner(self, samples: Samples, batching: Batching) -> BatchPlanner:
        return BatchPlanner(samples, batching, lambda rows: _pad_answers(rows, pad_to=self.pad_to, seed=batching.seed))

    def objective(self, model: LLaDAModelLM, *, seed: int) -> nn.Module:
        return Objective(model, mask_id=model.special_tokens.mask_id, seed=seed)

    def prompt(self, text: str) -> list[Message]:
        """A chat of one message by the user."""
        return [Message("user", text)]


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
    ) -> None:
        super().__init__(tokenizer, eos_id=eos_id)
        self._max_length = max_length
        self._overlong = overlong
        self._rules = rules or DialogueRules()

    @property
    def identity(self) -> list[object]:
        return [*super().identity, self._max_length, self._overlong, *astuple(self._rules)]

    def read(self, source: Source, report: ReadReport) -> Iterator[Item]:
        return read_dialogues(source.records(), report, self._rules)

    def encode(self, items: Sequence[Item]) -> Iterator[Encoded]:
        yield from self._documents([(number, item) for number, item in enumerate(items) if isinstance(item, tuple)])
        yield from self._gaps([(number, item) for number, item in enumerate(items) if isinstance(item, FilledGap)])
        yield from self._answers([(number, item) for number, item in enumerate(items) if isinstance(item, list)])

    def _documents(self, documents: Sequence[tuple[int, Document]]) -> Iterator[Encoded]:
        encoded = encode_documents(self.tokenizer, [document for _, document in documents])
        for (number, _), ids in zip(documents, encoded, strict=True):
            yield from self._fit(Encoded([*ids, self.eos_id], item=number))

    def _gaps(self, gaps: Sequence[tuple[int, FilledGap]]) -> Iterator[Encoded]:
        parts = iter(self.tokenizer.encode_batch([text for _, gap in gaps for text in astuple(gap)]))
        for number, _ in gaps:
            prefix, middle, suffix = next(parts), next(parts), next(parts)
            yield from self._fit(Encoded([*prefix, *middle, *suffix], len(prefix), len(suffix), number))

    def _answers(self, dialogues: Sequence[tuple[int, Dialogue]]) -> Iterator[Encoded]:
        bos_id, end_of_turn = (self.tokenizer.token_to_id(token) for token in (BOS_TOKEN, EOT_TOKEN))
        assert bos_id is not None and end_of_turn is not None
        # Not as `Tokenizer.encode_chat`, which trims: a completion keeps its spaces.
        contents = iter(self.tokenizer.encode_batch([turn.content for _, dialogue in dialogues for turn in dialogue]))
        for number, dialogue in dialogues:
            self.num_without_target += not any(turn.is_target for turn in dialogue)
            history = [bos_id]
            for turn in dialogue:
                header = self.tokenizer.header(turn.role)
                ids = [*history, *header, *next(contents), end_of_turn]
                if turn.is_target:
                    prompt_length = len(history) + len(header)
                    yield from self._fit(Encoded([*ids, self.eos_id], prompt_length, item=number))
                history = ids

    def _fit(self, sample: Encoded) -> Iterator[Encoded]:
        num_over = len(sample.ids) - self._max_length
        if num_over > 0:
            # A prompt of `max_length` leaves no room for the answer, and a gap needs some of what follows it.
            has_no_room = sample.prompt_length >= self._max_length or 0 < sample.suffix_length <= num_over
            if self._overlong == "drop" or has_no_room:
                self.num_dropped += 1
                return
            self.num_truncated += 1
            suffix_length = max(0, sample.suffix_length - num_over)
            sample = replace(sample, ids=sample.ids[: self._max_length], suffix_length=suffix_length)
        yield sample


def _pad_answers(rows: StepRows, *, pad_to: int | None, seed: int) -> RowLayout:
    """Pad to the longest row, or in one batch in three further; the padding of an answer is a target too."""
    length = int(rows.lengths_B.max())
    if pad_to is not None:
        chosen, fraction = (float(uniform(seed, Purpose.PADDING, rows.step, draw)) for draw in (0, 1))
        if chosen < _SHARE_OF_PADDED_BATCHES:
            length = max(length, int(pad_to * fraction))
    stops_B = torch.where(rows.suffix_lengths_B > 0, rows.lengths_B - rows.suffix_lengths_B, length)
    return RowLayout(stops_B, length)
