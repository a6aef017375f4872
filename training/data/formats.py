"""Formats of training records, all converted to text or dialogues.

| format        | record                                                                                     |
|---------------|--------------------------------------------------------------------------------------------|
| text          | `{"text": "…"}`, or a list of parts that are tokenised one by one                          |
| messages      | `{"messages": [{"role": "user", "content": "…"}, …]}`                                      |
| conversations | the same under "conversations", or ShareGPT's `{"from": "human", "value": "…"}`             |
| alpaca        | `{"instruction": "…", "input": "…", "output": "…"}`, input and history optional             |
| completion    | `{"prompt": "…", "completion": "…"}`, or both as lists of turns                            |
| gap           | `{"prefix": "…", "middle": "…", "suffix": "…"}`                                            |
| preference    | `{"prompt": "…", "chosen": "…", "rejected": "…"}`, or turns, or whole conversations        |
| question      | `{"prompt": "…", "answer": "…"}`, or `messages` that end with the user's; any other keys   |

`training.data.dialogues` reads those in between, which may also have a "system".
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from llada_core.text.tokenizer import Message
from training.data.dialogues import (
    Dialogue,
    DialogueReader,
    DialogueRules,
    Preference,
    Turn,
    UnusableError,
    text_of,
    unicode_only,
)
from training.data.files import Record
from training.errors import DataError

Document = tuple[str, ...]
"""The parts of a document, mostly one; each is tokenised by itself, as the segments of a canvas are."""

_BAD_LINES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FilledGap:
    """A text of which the middle is to be written and the rest is given; the parts are tokenised one by one."""

    prefix: str
    middle: str
    suffix: str


Item = Dialogue | Document | FilledGap
"""What one record says."""


@dataclass
class ReadReport:
    """The format of a source, and its records that cannot be used; too many of these stop the run.

    Attributes:
        limit: bad records that are allowed.
        count: bad records so far.
        share: the share of the source read so far, 0 to 1; None if its size is unknown.
        shown: the first bad records, as text for the user.
        left_out: how often each key was left out that says something about a record or a turn.
    """

    limit: int
    count: int = 0
    format: str = ""
    share: float | None = None
    shown: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, problem: str) -> None:
        """Count a bad record.

        Raises:
            DataError: more than `limit` records are bad.
        """
        self.count += 1
        if len(self.shown) < _BAD_LINES_SHOWN:
            self.shown.append(f"{place}: {problem}")
        if self.count > self.limit:
            allowed = f" ({self.count} bad lines; --max-bad-lines allows {self.limit})" if self.limit else ""
            raise DataError("\n".join(self.shown) + allowed)

    def __str__(self) -> str:
        return "\n".join((f"{self.count} bad lines left out; the first:", *self.shown))


def read_documents(records: Iterable[Record], report: ReadReport) -> Iterator[Document]:
    """Read documents: the `text` of every record."""
    reader = DialogueReader()
    report.left_out = reader.left_out
    return _convert(records, {"text": partial(_text, reader)}, report)


def read_dialogues(
    records: Iterable[Record],
    report: ReadReport,
    rules: DialogueRules | None = None,
    *,
    writes_thinking: bool = False,
) -> Iterator[Item]:
    """Read dialogues, or documents or filled gaps if the first record is one."""
    reader = DialogueReader(rules, writes_thinking=writes_thinking)
    report.left_out = reader.left_out
    return _convert(records, _formats_of(reader), report)


def read_preferences(
    records: Iterable[Record],
    report: ReadReport,
    rules: DialogueRules | None = None,
    *,
    writes_thinking: bool = False,
) -> Iterator[Preference]:
    """Read pairs of a chosen and a rejected answer."""
    reader = DialogueReader(rules, writes_thinking=writes_thinking)
    report.left_out = reader.left_out
    return _convert(records, {"preference": reader.preference}, report)


def read_any_text(records: Iterable[Record], report: ReadReport) -> Iterator[str]:
    """Read all text in records of any format, to train a tokenizer on."""
    reader = DialogueReader(DialogueRules(allow_empty_answers=True))
    report.left_out = reader.left_out
    for item in _convert(records, {"preference": reader.preference, **_formats_of(reader)}, report):
        match item:
            case tuple():
                yield "".join(item)
            case FilledGap(prefix, middle, suffix):
                yield prefix + middle + suffix
            case Preference(chosen, rejected):
                yield from (turn.content for turn in (*chosen, rejected[-1]))
            case _:
                yield from (turn.content for turn in item)


def read_prompts(records: Iterable[Record], report: ReadReport) -> Iterator[str | list[Message]]:
    """Read prompts for `generate`: the `prompt` of every record, or its `messages`, which end with the user's."""
    reader = DialogueReader(DialogueRules(allow_empty_answers=True))
    for record in records:
        problem = record.problem
        if problem is None:
            try:
                prompt = reader.prompt(record.value)
                yield prompt if isinstance(prompt, str) else [Message(turn.role, turn.content) for turn in prompt]
                continue
            except UnusableError as error:
                problem = str(error)
        report.add(record.place, problem)


@dataclass(frozen=True, slots=True)
class Question:
    """A chat that the assistant is to answer, and the whole record, which says how the answer is judged."""

    prompt: Dialogue
    record: Mapping[str, Any]


def read_questions(records: Iterable[Record], report: ReadReport, *, needs_answer: bool) -> Iterator[Question]:
    """Read questions: the `prompt` of every record, or its `messages`, and all else it says.

    Args:
        needs_answer: a record without a text under `answer` cannot be used.
    """
    reader = DialogueReader(DialogueRules(allow_empty_answers=True))
    for record in records:
        problem, report.share = record.problem, record.share
        if problem is None:
            try:
                prompt = reader.prompt(record.value)
                if needs_answer:
                    text_of(record.value, "answer")
                turns = [Turn("user", prompt.strip())] if isinstance(prompt, str) else prompt
                report.format = "question"
                yield Question(turns, record.value)
                continue
            except UnusableError as error:
                problem = str(error)
        report.add(record.place, problem)


def detect_format(value: Mapping[str, Any], *, among: Iterable[str] | None = None) -> str | None:
    """The name of a record's format, by its keys; if it has the keys of several, the first one in `_KEYS`."""
    names = [name for name in _KEYS if among is None or name in among]
    return next((name for name in names if _KEYS[name] <= value.keys()), None)


def _formats_of(reader: DialogueReader) -> dict[str, Callable[[Mapping[str, Any]], Item]]:
    return {
        "text": partial(_text, reader),
        "messages": reader.messages,
        "conversations": reader.messages,
        "alpaca": reader.alpaca,
        "completion": reader.completion,
        "gap": partial(_gap, reader),
    }


def _convert(
    records: Iterable[Record], formats: Mapping[str, Callable[[Mapping[str, Any]], Any]], report: ReadReport
) -> Iterator[Any]:
    """Convert records to the format of the first usable one; a record of another format is a bad line."""
    chosen: str | None = None
    for record in records:
        problem, report.share = record.problem, record.share
        if problem is None and chosen is None:
            chosen = detect_format(record.value, among=formats)
            if chosen is None:
                wanted = " or ".join(str(sorted(_KEYS[name])) for name in formats)
                problem = f"has the keys {sorted(record.value)}; needs {wanted}"
            else:
                report.format = chosen
        if problem is None and chosen is not None:
            try:
                yield formats[chosen](record.value)
                continue
            except UnusableError as error:
                problem = str(error)
        assert problem is not None
        report.add(record.place, problem)


def _text(reader: DialogueReader, value: Mapping[str, Any]) -> Document:
    reader.leave_out(value, {"text"})
    parts = value.get("text")
    if not isinstance(parts, list):
        return (text_of(value, "text"),)
    if not parts or not all(isinstance(part, str) and part for part in parts):
        raise UnusableError('needs a non-empty string "text", or a list of them')
    return tuple(unicode_only(part) for part in parts)


def _gap(reader: DialogueReader, value: Mapping[str, Any]) -> FilledGap:
    reader.leave_out(value, _KEYS["gap"])
    # A gap may stand at the beginning; at the end it would be an answer of any length, which has a format of its own.
    prefix = text_of(value, "prefix") if value["prefix"] != "" else ""
    return FilledGap(prefix, text_of(value, "middle"), text_of(value, "suffix"))


_KEYS = {
    # First: its prompt may be under the key of another.
    "preference": {"chosen", "rejected"},
    "messages": {"messages"},
    "conversations": {"conversations"},
    "alpaca": {"instruction", "output"},
    "completion": {"prompt", "completion"},
    "gap": {"prefix", "middle", "suffix"},
    "text": {"text"},
}
