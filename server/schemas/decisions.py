"""The body of OpenAI's decisions: typed questions about an input."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, Tag

from llada_core.checkpoint.decision_temperature import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from llada_core.decisions.labels import MOST_LABELS
from llada_core.decisions.orders import MOST_ORDERS
from llada_core.decisions.question import MOST_QUESTIONS, Option, Question, predicate
from llada_core.text.tokenizer import Message
from server.schemas.base import Body, List, NonEmptyList, NonEmptyText, Text, kind, typed
from server.schemas.json_text import JSONList, JSONObject, json_text

# Caches of prompts have no effect: there is none.
_BREAKPOINT = ({"mode": "explicit"},)
_CACHE_OPTIONS: tuple[dict[str, str], ...] = ({}, {"mode": "implicit"}, {"mode": "explicit"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as it is asked of the model, and where the body has it.

    Attributes:
        place, place_of_options: paths in the body.
    """

    question: Question
    place: str
    place_of_options: str


class AnyDecisionRequest(Body):
    """What the bodies of both endpoints of decisions have.

    Attributes:
        input_field: the name of the field that holds what the questions are about.
    """

    input_field: ClassVar[str]

    model: str | None = Field(None, description="the served model's name; may be omitted")
    order_averages: int = Field(
        2,
        ge=1,
        le=MOST_ORDERS,
        description="orders of the options over which probabilities are averaged; 1: as given, 2: and reversed",
    )
    temperature: float | None = Field(
        None,
        ge=LOWEST_TEMPERATURE,
        le=HIGHEST_TEMPERATURE,
        description="divides the logits of the answers; default: the model's decision_temperature, else 1",
    )

    @abstractmethod
    def conversation(self) -> list[Message]:
        """What the questions are about, as turns of a chat."""

    @abstractmethod
    def asked(self) -> list[Asked]:
        """The questions, in their order."""


class InputText(Body):
    """A part of text."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"prompt_cache_breakpoint": _BREAKPOINT}

    type: Literal["input_text"]
    text: Text

    def as_text(self) -> str:
        return self.text


class OutputText(Body):
    """A part of an earlier answer."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"annotations": ([],), "logprobs": ([],)}

    type: Literal["output_text"]
    text: Text

    def as_text(self) -> str:
        return self.text


class InputJSON(Body):
    """A part of JSON, which the model reads as text."""

    type: Literal["input_json"]
    data: Annotated[
        Annotated[JSONObject, Tag("<object>")] | Annotated[JSONList, Tag("<list>")], kind("<object>", "<list>")
    ]

    def as_text(self) -> str:
        return json_text(self.data)


def _text_of(content: str | Sequence[InputText | OutputText | InputJSON]) -> str:
    return content if isinstance(content, str) else "".join(part.as_text() for part in content)


class DecisionMessage(Body):
    """A turn of the input."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"phase": ("commentary", "final_answer")}

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Annotated[Text, Tag("<text>")]
        | Annotated[
            List[
                Annotated[
                    Annotated[InputText, Tag("<input_text>")]
                    | Annotated[OutputText, Tag("<output_text>")]
                    | Annotated[InputJSON, Tag("<input_json>")],
                    typed("input_text", "output_text", "input_json"),
                ]
            ],
            Tag("<parts>"),
        ],
        kind("<text>", "<parts>"),
    ]

    def as_turn(self) -> Message:
        """The turn for the chat template."""
        return Message("system" if self.role == "developer" else self.role, _text_of(self.content))


class DecisionQuestion(Body):
    """What every question has."""

    name: Text | None = Field(None, description="returned with the answer")
    instructions: Annotated[
        Annotated[NonEmptyText, Tag("<text>")]
        | Annotated[
            NonEmptyList[
                Annotated[
                    Annotated[InputText, Tag("<input_text>")] | Annotated[InputJSON, Tag("<input_json>")],
                    typed("input_text", "input_json"),
                ]
            ],
            Tag("<parts>"),
        ],
        kind("<text>", "<parts>"),
    ] = Field(description="the question, or a predicate's statement")


class PredicateQuestion(DecisionQuestion):
    """How likely is it that a statement about the input is true?"""

    type: Literal["predicate"]

    def asked(self, place: str) -> Asked:
        return Asked(predicate(_text_of(self.instructions)), place, place)


class Choice(Body):
    """A value to choose."""

    value: Annotated[
        Annotated[NonEmptyText, Tag("<text>")] | Annotated[bool, Tag("<boolean>")], kind("<text>", "<boolean>")
    ] = Field(description="a string and a boolean with the same text are distinct")
    description: Text | None = None


def _each_once(choices: Sequence[Choice]) -> Sequence[Choice]:
    seen = set()
    for choice in choices:
        key = (type(choice.value), choice.value)
        if key in seen:
            raise ValueError("hold every value once")
        seen.add(key)
    return choices


class ChoiceQuestion(DecisionQuestion):
    """Which of the values fits best?"""

    type: Literal["choice"]
    choices: Annotated[
        list[Choice], Field(fail_fast=True, min_length=2, max_length=MOST_LABELS), AfterValidator(_each_once)
    ]

    def asked(self, place: str) -> Asked:
        options = (Option(_shown(choice.value), choice.description or "") for choice in self.choices)
        return Asked(Question(_text_of(self.instructions), tuple(options)), place, f"{place}.choices")


def _shown(value: str | bool) -> str:
    return value if isinstance(value, str) else str(value).lower()


class Level(Body):
    """A level of a score."""

    label: NonEmptyText
    description: Text | None = None


class ScoreQuestion(DecisionQuestion):
    """Which of the levels, from the lowest to the highest, does the input reach?"""

    type: Literal["score"]
    levels: Annotated[list[Level], Field(fail_fast=True, min_length=2, max_length=MOST_LABELS)]

    def asked(self, place: str) -> Asked:
        options = (Option(level.label, level.description or "") for level in self.levels)
        return Asked(Question(_text_of(self.instructions), tuple(options)), place, f"{place}.levels")


class DecisionRequest(AnyDecisionRequest):
    """`POST /v1/decisions`: OpenAI's decisions."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "prompt_cache_options": (*_CACHE_OPTIONS, *({**options, "ttl": "30m"} for options in _CACHE_OPTIONS)),
    }
    input_field = "input"

    input: Annotated[
        Annotated[NonEmptyText, Tag("<text>")] | Annotated[NonEmptyList[DecisionMessage], Tag("<messages>")],
        kind("<text>", "<messages>"),
    ] = Field(description="what the questions are about: a text, or a conversation")
    questions: Annotated[
        list[
            Annotated[
                Annotated[PredicateQuestion, Tag("<predicate>")]
                | Annotated[ChoiceQuestion, Tag("<choice>")]
                | Annotated[ScoreQuestion, Tag("<score>")],
                typed("predicate", "choice", "score"),
            ]
        ],
        Field(fail_fast=True, min_length=1, max_length=MOST_QUESTIONS),
    ]
    safety_identifier: str | None = Field(None, description="logged; has no other effect")
    prompt_cache_key: str | None = Field(None, description="logged; has no other effect")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input": "The soup was cold and the waiter was rude.",
                    "questions": [
                        {"type": "predicate", "name": "satisfied", "instructions": "The guest is satisfied."},
                        {
                            "type": "choice",
                            "name": "topic",
                            "instructions": "What is the complaint about?",
                            "choices": [{"value": "food"}, {"value": "staff", "description": "people who work there"}],
                        },
                        {
                            "type": "score",
                            "name": "urgency",
                            "instructions": "How soon should somebody answer?",
                            "levels": [{"label": "this week"}, {"label": "today"}, {"label": "now"}],
                        },
                    ],
                }
            ]
        }
    )

    def conversation(self) -> list[Message]:
        if isinstance(self.input, str):
            return [Message("user", self.input)]
        return [message.as_turn() for message in self.input]

    def asked(self) -> list[Asked]:
        return [question.asked(f"questions.{number}") for number, question in enumerate(self.questions)]
