"""Records of labelled questions, in the shape of OpenAI's decisions, each with the right answer beside it.

    {"input": "…", "question": {"type": "predicate", "instructions": "…"}, "answer": true}
    {"input": "…", "question": {"type": "choice", "instructions": "…", "choices": [{"value": "a"}, …]}, "answer": "a"}
    {"input": "…", "question": {"type": "score", "instructions": "…", "levels": [{"label": "low"}, …]}, "answer": "low"}

The input may also be a list of `{"role", "content"}`. A value is a string or a boolean, and levels go from the lowest
to the highest; both may have a "description". Other keys of a record are not read.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from reprlib import repr as short
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llada_core.decisions.question import Option, Question, predicate
from llada_core.text.tokenizer import Message
from training.data.dialogues import UnusableError, unicode_only
from training.data.files import Record
from training.data.formats import ReadReport


@dataclass(frozen=True, slots=True)
class LabelledQuestion:
    """A question about a conversation, and its answer.

    Attributes:
        place: where it was read.
        kind: `predicate`, `choice` or `score`.
        answer: the index of the right option.
    """

    place: str
    kind: str
    conversation: list[Message]
    question: Question
    answer: int


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Turn(_Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class _Value(_Strict):
    value: Annotated[str, Field(min_length=1)] | bool
    description: str | None = None


class _Level(_Strict):
    label: Annotated[str, Field(min_length=1)]
    description: str | None = None


class _Predicate(_Strict):
    type: Literal["predicate"]
    name: str | None = None
    instructions: Annotated[str, Field(min_length=1)]

    def question(self) -> Question:
        return predicate(self.instructions)

    def answers(self) -> list[str | bool]:
        return [True, False]


class _Choice(_Strict):
    type: Literal["choice"]
    name: str | None = None
    instructions: Annotated[str, Field(min_length=1)]
    choices: Annotated[list[_Value], Field(min_length=2)]

    def question(self) -> Question:
        options = (Option(_shown(each.value), each.description or "") for each in self.choices)
        return Question(self.instructions, tuple(options))

    def answers(self) -> list[str | bool]:
        return [each.value for each in self.choices]


class _Score(_Strict):
    type: Literal["score"]
    name: str | None = None
    instructions: Annotated[str, Field(min_length=1)]
    levels: Annotated[list[_Level], Field(min_length=2)]

    def question(self) -> Question:
        return Question(self.instructions, tuple(Option(each.label, each.description or "") for each in self.levels))

    def answers(self) -> list[str | bool]:
        return [each.label for each in self.levels]


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    input: str | list[_Turn]
    question: Annotated[_Predicate | _Choice | _Score, Field(discriminator="type")]
    answer: Any


def _shown(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


def read_decisions(records: Iterable[Record], report: ReadReport) -> Iterator[LabelledQuestion]:
    """Read labelled questions; a record that is none is a bad line."""
    for record in records:
        problem = record.problem
        if problem is None:
            try:
                yield _labelled(record)
                continue
            except UnusableError as error:
                problem = str(error)
        report.add(record.place, problem)


def _labelled(record: Record) -> LabelledQuestion:
    try:
        row = _Row.model_validate(record.value)
    except ValidationError as error:
        problem = error.errors()[0]
        path = ".".join(str(part) for part in problem["loc"])
        raise UnusableError(f"{path}: {problem['msg']}") from None
    unicode_only(json.dumps(row.model_dump(), ensure_ascii=False))
    # The string "true" is not the boolean.
    answers = [(type(answer), answer) for answer in row.question.answers()]
    if len(set(answers)) < len(answers):
        raise UnusableError("question: lists an option twice")
    if not isinstance(row.answer, str | bool) or (type(row.answer), row.answer) not in answers:
        raise UnusableError(f"answer: is {short(row.answer)}; it must be one of the question's options")
    turns = [_Turn(role="user", content=row.input)] if isinstance(row.input, str) else row.input
    return LabelledQuestion(
        record.place,
        row.question.type,
        [Message(turn.role, turn.content) for turn in turns],
        row.question.question(),
        answers.index((type(row.answer), row.answer)),
    )
