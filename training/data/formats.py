"""Formats of training records, all converted to text or dialogues.

| format        | record                                                                           |
|---------------|----------------------------------------------------------------------------------|
| text          | `{"text": "…"}`, or a list of parts that are tokenised one by one                |
| messages      | `{"messages": [{"role": "user", "content": "…"}, …]}`                            |
| conversations | the same under "conversations", or ShareGPT's `{"from": "human", "value": "…"}`   |
| alpaca        | `{"instruction": "…", "input": "…", "output": "…"}`, input optional               |
| completion    | `{"prompt": "…", "completion": "…"}`                                             |
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llada_core.text.tokenizer import Message
from training.data.sources import Record
from training.errors import DataError

Dialogue = list[Message]
Document = tuple[str, ...]
"""The parts of a document, mostly one; each is tokenised by itself, as the segments of a canvas are."""

_SHARED_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_BAD_LINES_SHOWN = 5


@dataclass
class ReadReport:
    """The format of a source, and its records that cannot be used; too many of these stop the run.

    Attributes:
        limit: bad records that are allowed.
        count: bad records so far.
        share: the share of the source read so far, 0 to 1; None if its size is unknown.
        shown: the first bad records, as text for the user.
    """

    limit: int
    count: int = 0
    format: str = ""
    share: float | None = None
    shown: list[str] = field(default_factory=list)

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


class _UnusableError(Exception):
    """A record that its format cannot read; the message is the rule it breaks."""


def read_documents(records: Iterable[Record], report: ReadReport) -> Iterator[Document]:
    """Read documents: the `text` of every record."""
    return _convert(records, {"text": _text}, report)


def read_dialogues(records: Iterable[Record], report: ReadReport) -> Iterator[Dialogue | Document]:
    """Read dialogues, or documents if the first record is text."""
    return _convert(records, {"text": _text, **_DIALOGUE_FORMATS}, report)


def read_any_text(records: Iterable[Record], report: ReadReport) -> Iterator[str]:
    """Read all text in records of any format, to train a tokenizer on."""
    for item in read_dialogues(records, report):
        if isinstance(item, tuple):
            yield "".join(item)
        else:
            yield from (message.content for message in item)


def read_prompts(records: Iterable[Record], report: ReadReport) -> Iterator[str | Dialogue]:
    """Read prompts for `generate`: the `prompt` of every record, or its `messages`, which end with the user's."""
    for record in records:
        problem = record.problem
        if problem is None:
            try:
                yield _prompt(record.value)
                continue
            except _UnusableError as error:
                problem = str(error)
        report.add(record.place, problem)


def detect_format(value: Mapping[str, Any], *, among: Iterable[str] | None = None) -> str | None:
    """The name of a record's format, by its keys; if it has the keys of several, the first one in `_KEYS`."""
    names = [name for name in _KEYS if among is None or name in among]
    return next((name for name in names if _KEYS[name] <= value.keys()), None)


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
            except _UnusableError as error:
                problem = str(error)
        assert problem is not None
        report.add(record.place, problem)


def _text(value: Mapping[str, Any]) -> Document:
    parts = value.get("text")
    if not isinstance(parts, list):
        return (_string(value, "text"),)
    if not parts or not all(isinstance(part, str) and part for part in parts):
        raise _UnusableError('needs a non-empty string "text", or a list of them')
    return tuple(_unicode(part) for part in parts)


def _messages(value: Mapping[str, Any]) -> Dialogue:
    turns = value.get("messages", value.get("conversations"))
    if not isinstance(turns, list) or not turns:
        raise _UnusableError('needs a non-empty list "messages" or "conversations"')
    dialogue = [_message(turn) for turn in turns]
    if dialogue[-1].role != "assistant":
        raise _UnusableError(f"the last message is by {dialogue[-1].role!r}; it must be by 'assistant'")
    return dialogue


def _prompt(value: Mapping[str, Any]) -> str | Dialogue:
    if "messages" not in value:
        return _string(value, "prompt")
    turns = value["messages"]
    dialogue = [_message(turn) for turn in turns] if isinstance(turns, list) else []
    if not dialogue or dialogue[-1].role != "user":
        raise _UnusableError("needs a list \"messages\" whose last one is by 'user'")
    return dialogue


def _message(turn: object) -> Message:
    match turn:
        case {"role": "system" | "user" | "assistant" as role, "content": str(content)}:
            return Message(role, _unicode(content))
        case {"from": str(sender), "value": str(content)} if sender in _SHARED_ROLES:
            return Message(_SHARED_ROLES[sender], _unicode(content))
    raise _UnusableError(
        'a message needs a "role" (system, user or assistant) and a string "content", '
        'or "from" (human or gpt) and "value"'
    )


def _alpaca(value: Mapping[str, Any]) -> Dialogue:
    question = _string(value, "instruction")
    if value.get("input"):
        question = f"{question}\n\n{_string(value, 'input')}"
    return [Message("user", question), Message("assistant", _string(value, "output"))]


def _completion(value: Mapping[str, Any]) -> Dialogue:
    return [Message("user", _string(value, "prompt")), Message("assistant", _string(value, "completion"))]


def _string(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text:
        raise _UnusableError(f'needs a non-empty string "{key}"')
    return _unicode(text)


def _unicode(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can express although it is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _UnusableError(f"holds half of a surrogate pair (character {error.start})") from None
    return text


_KEYS = {
    "messages": {"messages"},
    "conversations": {"conversations"},
    "alpaca": {"instruction", "output"},
    "completion": {"prompt", "completion"},
    "text": {"text"},
}
_DIALOGUE_FORMATS: dict[str, Callable[[Mapping[str, Any]], Dialogue]] = {
    "messages": _messages,
    "conversations": _messages,
    "alpaca": _alpaca,
    "completion": _completion,
}
