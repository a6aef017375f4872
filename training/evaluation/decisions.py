"""How good decisions are: right answers, and probabilities that mean what they say.

Shape suffixes: N questions, O orders of one, K its options.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from llada_core.decisions.reading import probabilities

_BINS = 10


@dataclass(frozen=True, slots=True)
class ReadQuestion:
    """The logits of a question's options and the index of the right one.

    Attributes:
        kind: `predicate`, `choice` or `score`.
        logits_OK: as `read_in_parts` returns them.
    """

    kind: str
    logits_OK: Tensor
    answer: int


@dataclass(frozen=True, slots=True)
class DecisionScores:
    """Figures over all questions; the lower the better but for accuracy.

    Attributes:
        accuracy: the share of questions whose likeliest option is the right one.
        brier: the mean over questions of Σ (p - y)² over the options, y being 1 for the right one and 0 for the others.
        ece: the expected calibration error (arXiv:1706.04599): the mean distance of accuracy and the highest
            probability within ten bins of equal width of the latter, weighted by their sizes.
        nll: the mean negative log-probability of the right option, in nats.
    """

    num_questions: int
    accuracy: float
    brier: float
    ece: float
    nll: float


def score(questions: Sequence[ReadQuestion], temperature: float) -> DecisionScores:
    """Score at least one question's probabilities at a temperature."""
    outcomes = [_outcome(question, temperature) for question in questions]
    right_N, confidence_N, brier_N, nll_N = torch.tensor(outcomes, dtype=torch.float64).T
    bins_N = (confidence_N * _BINS).ceil().long().clamp(1, _BINS) - 1
    distances = torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bins_N, right_N - confidence_N)
    return DecisionScores(
        len(questions),
        float(right_N.mean()),
        float(brier_N.mean()),
        float(distances.abs().sum()) / len(questions),
        float(nll_N.mean()),
    )


def score_by_kind(questions: Iterable[ReadQuestion], temperature: float) -> dict[str, DecisionScores]:
    """Score the questions of each kind, and then `all`."""
    ordered = sorted(questions, key=lambda question: question.kind)
    by_kind = groupby(ordered, key=lambda question: question.kind)
    return {kind: score(list(group), temperature) for kind, group in by_kind} | {"all": score(ordered, temperature)}


def nll(question: ReadQuestion, temperature: float) -> float:
    """Return the negative log-probability of the right option, in nats. It stays finite where the probability is 0."""
    log_p_OK = (question.logits_OK / temperature).log_softmax(dim=1)
    return math.log(len(log_p_OK)) - float(log_p_OK[:, question.answer].logsumexp(dim=0))


def _outcome(question: ReadQuestion, temperature: float) -> tuple[float, float, float, float]:
    """Whether the likeliest option is right, its probability, the Brier score, the NLL."""
    p_K = probabilities(question.logits_OK, temperature)
    likeliest = int(p_K.argmax())
    brier = float(p_K.square().sum() - 2 * p_K[question.answer] + 1)
    return float(likeliest == question.answer), float(p_K[likeliest]), brier, nll(question, temperature)
