"""The answer to each type of question, made from the probabilities of its options."""

from collections.abc import Sequence

from server.schemas import systemone
from server.schemas.decision_answers import (
    ChoiceAnswer,
    LevelProbability,
    NoulAnswer,
    PredicateAnswer,
    ScoreAnswer,
    SystemOneChoice,
    SystemOneScore,
    ValueProbability,
)
from server.schemas.decisions import ChoiceQuestion, PredicateQuestion, ScoreQuestion


def decision_answer(
    question: PredicateQuestion | ChoiceQuestion | ScoreQuestion, probabilities: Sequence[float]
) -> PredicateAnswer | ChoiceAnswer | ScoreAnswer:
    """The answer in the shape of OpenAI's decisions."""
    match question:
        case PredicateQuestion():
            return PredicateAnswer(name=question.name, probability=probabilities[0])
        case ChoiceQuestion():
            return ChoiceAnswer(
                name=question.name,
                choice=question.choices[likeliest(probabilities)].value,
                confidence=peak(probabilities),
                probabilities=[
                    ValueProbability(value=choice.value, probability=probability)
                    for choice, probability in zip(question.choices, probabilities, strict=True)
                ],
            )
        case ScoreQuestion():
            return ScoreAnswer(
                name=question.name,
                score=expected(probabilities),
                confidence=closeness(probabilities),
                probabilities=[
                    LevelProbability(label=level.label, value=value, probability=probability)
                    for value, (level, probability) in enumerate(zip(question.levels, probabilities, strict=True))
                ],
            )


def systemone_answer(
    question: systemone.NoulQuestion | systemone.ChoiceQuestion | systemone.ScoreQuestion,
    probabilities: Sequence[float],
) -> NoulAnswer | SystemOneChoice | SystemOneScore:
    """The answer in the shape of `/v1/systemone`."""
    match question:
        case systemone.NoulQuestion():
            return NoulAnswer(noul=probabilities[0])
        case systemone.ChoiceQuestion():
            names = list(question.criteria)
            return SystemOneChoice(
                choice=names[likeliest(probabilities)],
                confidence=peak(probabilities),
                probabilities=dict(zip(names, probabilities, strict=True)),
            )
        case systemone.ScoreQuestion():
            numbers = [str(number) for number in range(len(question.criteria))]
            return SystemOneScore(
                score=expected(probabilities),
                legend=dict(zip(numbers, question.criteria, strict=True)),
                confidence=closeness(probabilities),
                probabilities=dict(zip(numbers, probabilities, strict=True)),
            )


def likeliest(probabilities: Sequence[float]) -> int:
    """The index of the highest probability; on a tie, the first."""
    return max(range(len(probabilities)), key=probabilities.__getitem__)


def expected(probabilities: Sequence[float]) -> float:
    """The expected level, counted from 0."""
    return sum(level * probability for level, probability in enumerate(probabilities))


def peak(probabilities: Sequence[float]) -> float:
    """How far the highest probability is above an even share of all: 0 if all are equal, 1 if one is certain."""
    even = 1 / len(probabilities)
    return max(0.0, (max(probabilities) - even) / (1 - even))


def closeness(probabilities: Sequence[float]) -> float:
    """How close the levels' probability lies to the likeliest level.

    1 minus the mean distance from that level, as a share of the mean distance that even probabilities have from the
    middle; at least 0.
    """
    best, middle = likeliest(probabilities), (len(probabilities) - 1) / 2
    distance = sum(probability * abs(level - best) for level, probability in enumerate(probabilities))
    even_distance = sum(abs(level - middle) for level in range(len(probabilities))) / len(probabilities)
    return max(0.0, 1 - distance / even_distance)
