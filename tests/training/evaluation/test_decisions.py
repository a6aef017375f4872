"""Figures of decisions, and the temperature that is fitted to them."""

import math

import pytest
import torch

from llada_core.decisions.reading import probabilities
from training.evaluation.calibration import HIGHEST, LOWEST, fit_temperature
from training.evaluation.decisions import ReadQuestion, nll, score, score_by_kind


def question(*probabilities_of_orders, answer=0, kind="choice"):
    return ReadQuestion(kind, torch.tensor(probabilities_of_orders, dtype=torch.float64).log(), answer)


def test_the_figures_are_those_of_the_definitions():
    questions = [
        question([0.9, 0.1], answer=0),
        question([0.85, 0.15], answer=1),
        question([0.3, 0.35, 0.35], answer=2),
    ]
    # On a tie the first counts as the likeliest: 1 of 3 is right.
    scores = score(questions, 1.0)
    assert scores.num_questions == 3
    assert scores.accuracy == pytest.approx(1 / 3)
    assert scores.brier == pytest.approx((0.02 + 2 * 0.85**2 + 0.3**2 + 0.35**2 + 0.65**2) / 3)
    assert scores.nll == pytest.approx(-(math.log(0.9) + math.log(0.15) + math.log(0.35)) / 3)
    # (0.8, 0.9] holds two, one right of 0.875 on average; (0.3, 0.4] holds one, wrong at 0.35.
    assert scores.ece == pytest.approx((2 * abs(1 / 2 - 0.875) + 0.35) / 3)


def test_orders_are_averaged_before_anything_is_scored():
    averaged = score([question([0.9, 0.1], [0.5, 0.5])], 1.0)
    assert averaged.nll == pytest.approx(-math.log(0.7))
    assert averaged.brier == pytest.approx(2 * 0.3**2)


def test_the_nll_stays_finite_where_a_probability_is_0():
    far = ReadQuestion("predicate", torch.tensor([[500.0, -500.0], [400.0, -400.0]], dtype=torch.float64), 1)
    assert float(probabilities(far.logits_OK, 0.5)[1]) == 0
    assert nll(far, 0.5) == pytest.approx(800 / 0.5 + math.log(2))


def test_kinds_are_scored_by_themselves_and_together():
    questions = [question([0.9, 0.1], kind="score"), question([0.2, 0.8], kind="predicate")] * 2
    scores = score_by_kind(questions, 1.0)
    assert list(scores) == ["predicate", "score", "all"]
    assert [each.accuracy for each in scores.values()] == [0, 1, 0.5]
    assert scores["all"] == score(questions, 1.0)


@pytest.mark.parametrize("num_orders", [1, 2])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_answers_is_recovered(temperature, num_orders):
    generator = torch.Generator().manual_seed(1)
    questions = []
    for _ in range(1200):
        logits_OK = torch.randn(num_orders, 3, generator=generator, dtype=torch.float64) * 2 * temperature
        answer = int(torch.multinomial(probabilities(logits_OK, temperature), 1, generator=generator))
        questions.append(ReadQuestion("choice", logits_OK, answer))
    found = fit_temperature(questions)
    assert found == pytest.approx(temperature, rel=0.12)
    best = sum(nll(each, found) for each in questions)
    assert all(best <= sum(nll(each, found * factor) for each in questions) for factor in (0.98, 1.02))
    assert score(questions, found).ece < 0.04


def test_answers_that_are_all_right_or_never_ask_for_an_end_of_the_range():
    assert fit_temperature([question([0.9, 0.1])] * 3) == LOWEST
    assert fit_temperature([question([0.9, 0.1], answer=1)] * 3) == HIGHEST
