"""The body of `/v1/systemone`, in the shape that `transformers serve`, vLLM and llama.cpp share."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, Tag

from llada_core.decisions.labels import MOST_LABELS
from llada_core.decisions.question import MOST_QUESTIONS, Option, Question, predicate
from llada_core.text.tokenizer import Message
from server.http.api_error import LONGEST_VALUE
from server.schemas.base import Body, NonEmptyText, Text, kind, typed
from server.schemas.decisions import AnyDecisionRequest, Asked
from server.schemas.json_text import JSONList, JSONObject, json_text

Content = Annotated[
    Annotated[NonEmptyText, Tag("<text>")]
    | Annotated[JSONObject, Tag("<object>")]
    | Annotated[JSONList, Tag("<list>")],
    kind("<text>", "<object>", "<list>"),
]
"""A text, or JSON that the model reads as text."""


def _text_of(content: str | dict[str, Any] | list[Any] | None) -> str:
    if content is None:
        return ""
    return content if isinstance(content, str) else json_text(content)


class SystemOneQuestion(Body):
    """What every question has."""

    instructions: Content | None = Field(None, description="the question")


class NoulCriteria(Body):
    """When a statement counts as true or as false."""

    true: Content | None = None
    false: Content | None = None


class NoulQuestion(SystemOneQuestion):
    """How likely is it that the answer is yes?"""

    type: Literal["noul"]
    criteria: NoulCriteria | None = Field(None, description="when the answer is yes (`true`) and when it is no")

    def asked(self, place: str) -> Asked:
        criteria = self.criteria or NoulCriteria()
        question = predicate(_text_of(self.instructions), yes=_text_of(criteria.true), no=_text_of(criteria.false))
        return Asked(question, place, place)


class ChoiceQuestion(SystemOneQuestion):
    """Which of the keys fits best?"""

    type: Literal["choice"]
    criteria: Annotated[dict[NonEmptyText, Content | None], Field(min_length=2, max_length=MOST_LABELS)] = Field(
        description="each option and its description, or null"
    )

    def asked(self, place: str) -> Asked:
        options = (Option(name, _text_of(description)) for name, description in self.criteria.items())
        return Asked(Question(_text_of(self.instructions), tuple(options)), place, f"{place}.criteria")


class ScoreQuestion(SystemOneQuestion):
    """Which of the levels does the state reach?"""

    type: Literal["score"]
    criteria: Annotated[list[Content], Field(fail_fast=True, min_length=2, max_length=MOST_LABELS)] = Field(
        description="the levels, from the lowest to the highest"
    )

    def asked(self, place: str) -> Asked:
        options = (Option(_text_of(level)) for level in self.criteria)
        return Asked(Question(_text_of(self.instructions), tuple(options)), place, f"{place}.criteria")


class SystemOneRequest(AnyDecisionRequest):
    """`POST /v1/systemone`: typed questions about a state, by name."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"assets": ({},)}
    input_field = "state"

    state: Content = Field(description="what the questions are about: a text, or JSON that the model reads as text")
    questions: Annotated[
        dict[
            Text,
            Annotated[
                Annotated[NoulQuestion, Tag("<noul>")]
                | Annotated[ChoiceQuestion, Tag("<choice>")]
                | Annotated[ScoreQuestion, Tag("<score>")],
                typed("noul", "choice", "score"),
            ],
        ],
        Field(min_length=1, max_length=MOST_QUESTIONS),
    ] = Field(description="each question under a name of its own")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "state": {"message": "You have won a telephone, click here!"},
                    "questions": {
                        "spam": {"type": "noul", "instructions": "Is this message spam?"},
                        "tone": {
                            "type": "choice",
                            "instructions": "What is the tone?",
                            "criteria": {"calm": "a polite message", "pushy": "presses the reader"},
                        },
                        "urgency": {
                            "type": "score",
                            "instructions": "How urgent is it?",
                            "criteria": ["can wait", "this week", "today"],
                        },
                    },
                }
            ]
        }
    )

    def conversation(self) -> list[Message]:
        return [Message("user", _text_of(self.state))]

    def asked(self) -> list[Asked]:
        return [question.asked(f"questions.{name[:LONGEST_VALUE]}") for name, question in self.questions.items()]
