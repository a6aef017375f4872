"""Draws above temperature 0 against the exact distribution, by trying every answer of a small vocabulary."""

import math
from collections import Counter

import numpy as np
import pytest

from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import prepare_responses
from tests.llada_core.sampling.constraints.brute_force import (
    EOS,
    EOT,
    MASK,
    VOCABULARY,
    answers,
    constraint_of,
    fillings,
)
from tests.llada_core.sampling.constraints.pseudo_model import step


def logits_of(length, scale=1.0):
    return np.random.default_rng(length).normal(size=(length, 11), scale=scale)


def log_probabilities(logits_LV, temperature):
    scaled = logits_LV / temperature
    return (
        scaled
        - np.log(np.exp(scaled - scaled.max(1, keepdims=True)).sum(1, keepdims=True))
        - scaled.max(1, keepdims=True)
    )


def conditional(found, logits_LV, temperature):
    """The probability of each of these answers: their product of softmax probabilities, rescaled."""
    logs = log_probabilities(logits_LV, temperature)[np.arange(len(logits_LV)), found].sum(1)
    weights = np.exp(logs - logs.max())
    return dict(zip(map(tuple, found.tolist()), weights / weights.sum(), strict=True))


def responses_of(pattern, logits_LV, number, *, pinned=None, **params):
    """The answers of `number` seeds, whole."""
    params = GenerationParams(gen_length=len(logits_LV), **params)
    constraint = constraint_of(pattern)
    seeds = range(number)
    for canvas in prepare_responses([0], params, VOCABULARY, seeds=seeds, constraint=constraint, pinned=pinned or {}):
        while canvas.finish_reason is None:
            step(canvas, logits_LV)
        yield tuple(canvas.response)


def assert_follow(responses, expected):
    """Chi-square; answers that are rare count as one."""
    counts, number = Counter(responses), len(responses)
    assert set(counts) <= set(expected)
    frequent = [answer for answer, probability in expected.items() if probability * number >= 5]
    pairs = [(counts[answer], expected[answer] * number) for answer in frequent]
    mean = number - sum(mean for _, mean in pairs)
    if mean > 1e-6:
        pairs.append((number - sum(count for count, _ in pairs), mean))
    statistic, degrees = sum((count - mean) ** 2 / mean for count, mean in pairs), len(pairs) - 1
    assert degrees >= 3
    # Four standard deviations of chi-square.
    assert statistic < degrees + 4 * math.sqrt(2 * degrees), (statistic, degrees)


CASES = [
    ("(ab|ba)+", 3, {}, {}),
    ("[^a]{2,3}", 3, {"remasking": "random"}, {}),
    (".{0,3}", 2, {"temperature": 1.7}, {}),
    ("(a|b)*1", 4, {"remasking": "entropy"}, {1: [2]}),
    ("a*", 4, {"temperature": 1.4}, {}),
    ("a?é{1,2}", 4, {}, {3: [EOS]}),
    ("b(é1)*", 4, {"confidence_threshold": 1e-9}, {0: [1]}),
]


def assert_one_step_follows(pattern, length, params, pinned, number):
    params = {"temperature": 0.8, **({} if "confidence_threshold" in params else {"steps": 1}), **params}
    logits = logits_of(length)
    response = [pinned[place][0] if place in pinned else MASK for place in range(length)]
    expected = conditional(fillings(pattern, response), logits, params["temperature"])
    assert_follow(list(responses_of(pattern, logits, number, pinned=pinned, **params)), expected)


@pytest.mark.parametrize(("pattern", "length", "params", "pinned"), CASES)
def test_a_canvas_filled_in_one_step_is_a_draw_given_the_pattern(pattern, length, params, pinned):
    assert_one_step_follows(pattern, length, params, pinned, 300)


@pytest.mark.fuzz
@pytest.mark.parametrize(("pattern", "length", "params", "pinned"), CASES)
def test_many_canvases_filled_in_one_step_are_draws_given_the_pattern(pattern, length, params, pinned):
    assert_one_step_follows(pattern, length, params, pinned, 20_000)


def test_blocks_of_one_step_each_are_drawn_given_that_the_rest_can_be_filled():
    pattern, length, temperature = "(a|b)*1", 4, 0.8
    logits, found = logits_of(length), answers(pattern, length)
    expected = {}
    for left, probability in conditional(np.unique(found[:, :2], axis=0), logits[:2], temperature).items():
        right = found[(found[:, :2] == left).all(1)][:, 2:]
        for rest, given in conditional(right, logits[2:], temperature).items():
            # Which of the two ends comes after the first does not matter, nor whether it was written.
            answer = tuple(min(EOS, id_) for id_ in left + rest)
            expected[answer] = expected.get(answer, 0) + probability * given
    settings = {"block_length": 2, "steps": 2, "temperature": temperature}
    responses = list(responses_of(pattern, logits, 400, **settings))
    assert_follow([tuple(EOS if id_ in (MASK, EOT) else id_ for id_ in ids) for ids in responses], expected)


def test_the_most_probable_tokens_that_are_left_out_are_used_no_more_than_a_pattern_needs():
    pattern, length = "[^a]{2,3}", 3
    logits = logits_of(length, scale=3.0)
    is_allowed = logits >= np.sort(logits, axis=1)[:, -2:-1]
    found = answers(pattern, length)
    num_left_out = (~is_allowed[np.arange(length), found]).sum(1)
    assert num_left_out.min() > 0
    expected = conditional(found[num_left_out == num_left_out.min()], logits, 2.0)
    responses = list(responses_of(pattern, logits, 300, steps=1, temperature=2.0, top_k=2))
    assert set(responses) <= set(expected)
    if len(expected) > 3:
        assert_follow(responses, expected)


def test_an_end_that_comes_too_early_is_written_only_where_nothing_else_can_be():
    logits = logits_of(3)
    for response in responses_of("a*", logits, 50, steps=1, temperature=1.0, min_tokens=3):
        assert response == (0, 0, 0)
    for response in responses_of("ab|a", logits, 50, steps=1, temperature=1.0, min_tokens=3):
        assert len([id_ for id_ in response if id_ >= EOS]) == 1


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_coldest_draw_is_the_most_probable_answer(scale):
    pattern, length = "(a|b)*1", 4
    logits, found = logits_of(length, scale), answers(pattern, length)
    best = max(map(tuple, found.tolist()), key=lambda ids: logits[np.arange(length), list(ids)].sum())
    for temperature in (1e-300, 1e-12, 1e-3):
        for response in responses_of(pattern, logits, 5, steps=1, temperature=temperature):
            assert response == best, temperature


def test_the_hottest_draw_takes_all_answers_alike():
    found = answers("(ab|ba)+", 3)
    expected = {tuple(ids): 1 / len(found) for ids in found.tolist()}
    assert_follow(list(responses_of("(ab|ba)+", logits_of(3, 30.0), 300, steps=1, temperature=1e6)), expected)


def test_probabilities_that_float32_cannot_hold_are_compared_all_the_same():
    logits = logits_of(3)
    # No letter that an answer may have is anywhere near the model's choice.
    logits[:, [4, 5, 7]] += 300
    expected = conditional(answers("(ab|ba)+", 3), logits, 0.8)
    assert_follow(list(responses_of("(ab|ba)+", logits, 300, steps=1, temperature=0.8)), expected)
