"""The shapes of the answers to decisions."""

from typing import Any, Literal

from pydantic import Field

from server.schemas.answers import Answer


class DecisionUsage(Answer):
    """What went through the model under the names of OpenAI's decisions; nothing is generated."""

    input_tokens: int = Field(description="tokens of all questions, input included, in every order of their options")
    input_tokens_details: dict[str, int]
    output_tokens: Literal[0]
    output_tokens_details: dict[str, int]
    total_tokens: int
    forward_passes: int = Field(description="one for each question and order")


class PredicateAnswer(Answer):
    """How likely it is that the statement is true."""

    type: Literal["predicate"] = "predicate"
    name: str | None
    probability: float


class ValueProbability(Answer):
    """A value and how likely it is that it fits best."""

    value: str | bool
    probability: float


class ChoiceAnswer(Answer):
    """The likeliest value; on a tie, the first."""

    type: Literal["choice"] = "choice"
    name: str | None
    choice: str | bool
    confidence: float = Field(description="0: all are equally likely, 1: one is certain")
    probabilities: list[ValueProbability]


class LevelProbability(Answer):
    """A level, its number from 0, and its probability."""

    label: str
    value: int
    probability: float


class ScoreAnswer(Answer):
    """The expected level, counted from 0."""

    type: Literal["score"] = "score"
    name: str | None
    score: float
    confidence: float = Field(description="1: one level is certain, 0: as far from the likeliest as chance")
    probabilities: list[LevelProbability]


class Decision(Answer):
    """`POST /v1/decisions`."""

    model: str
    answers: list[PredicateAnswer | ChoiceAnswer | ScoreAnswer] = Field(description="in the order of the questions")
    usage: DecisionUsage
    order_averages: int
    temperature: float


class NoulAnswer(Answer):
    """How likely yes is."""

    type: Literal["noul"] = "noul"
    noul: float


class SystemOneChoice(Answer):
    """The likeliest key; on a tie, the first."""

    type: Literal["choice"] = "choice"
    choice: str
    confidence: float
    probabilities: dict[str, float]


class SystemOneScore(Answer):
    """The expected level, counted from 0; `legend` says which level has which number."""

    type: Literal["score"] = "score"
    score: float
    legend: dict[str, Any]
    confidence: float
    probabilities: dict[str, float]


class SystemOneUsage(Answer):
    """The tokens that went through the model; nothing is generated."""

    input_tokens: int
    output_tokens: Literal[0]


class SystemOne(Answer):
    """`POST /v1/systemone`."""

    model: str
    answers: dict[str, NoulAnswer | SystemOneChoice | SystemOneScore]
    usage: SystemOneUsage
