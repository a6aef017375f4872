"""Runs on a small vocabulary, judged by trying every answer."""

import math
import random
from itertools import permutations

import numpy as np
import pytest

from llada_core.errors import InvalidParameterError
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import prepare_response, prepare_responses
from tests.llada_core.sampling.constraints.brute_force import (
    EOS,
    EOT,
    MASK,
    PATTERNS,
    VOCABULARY,
    answers,
    constraint_of,
    fillings,
)
from tests.llada_core.sampling.constraints.pseudo_model import step

SETTINGS = [
    {},
    {"steps": 2},
    {"steps": 1},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_k": 2, "steps": 2},
    {"temperature": 2.0, "top_p": 0.5},
    {"confidence_threshold": 0.3},
    {"confidence_factor": 1.2, "temperature": 0.5},
    {"entropy_bound": 1.5, "remasking": "entropy"},
    {"remasking": "margin", "steps": 2},
    {"remasking": "random"},
    {"min_tokens": 2},
    {"confidence_eos_eot_inf": True, "steps": 2},
    {"logit_bias": {0: -100.0, 6: -100.0, 9: 50.0}},
]


def settings_of(generator, length):
    setting = dict(generator.choice(SETTINGS))
    block_length = generator.randint(1, length)
    if "steps" in setting:
        setting["steps"] = max(setting["steps"], -(-length // block_length))
    return {**setting, "min_tokens": min(length, setting.get("min_tokens", 0))} | {
        "gen_length": length,
        "block_length": block_length,
        "seed": generator.randrange(1000),
    }


def logits_of(generator, length):
    return np.random.default_rng(generator.randrange(10**6)).normal(size=(length, 11), scale=2.0)


def random_pins(generator, length):
    """A response with tokens at random places: of a random answer or arbitrary ones."""
    places = generator.sample(range(length), min(length, generator.choice([0, 0, 1, 2])))
    return {place: [generator.choice([0, 1, 2, 4, 5, 6, 7, EOS])] for place in places}


def run_one(seed, longest):
    generator = random.Random(seed)
    pattern, length = generator.choice(PATTERNS), generator.randint(1, longest)
    constraint, pinned = constraint_of(pattern), random_pins(generator, length)
    response = [pinned[position][0] if position in pinned else MASK for position in range(length)]
    params = GenerationParams(**settings_of(generator, length))

    def prepare(pinned):
        return prepare_response([0], params, VOCABULARY, pinned=pinned, constraint=constraint)

    if not len(fillings(pattern, response)):
        with pytest.raises(InvalidParameterError) as caught:
            prepare(pinned)
        if constraint.shortest > length:
            assert str(caught.value).endswith(f"the shortest matching answer takes {constraint.shortest} tokens")
        else:
            first = next(
                position
                for position in range(length)
                if not len(fillings(pattern, [*response[: position + 1], *[MASK] * (length - position - 1)]))
            )
            assert f"the token at position {first} " in str(caught.value)
        return 0
    canvas = prepare(pinned)
    num_commits = 0
    while canvas.finish_reason is None:
        block = canvas.schedule.block
        left = canvas.progress.fillings(canvas.tokens[1:], block.stop)
        all_fillings = fillings(pattern, canvas.response)
        for position in canvas.proposal_positions():
            viable = set(all_fillings[:, position])
            assert set(left.viable_ids(position - block.start).tolist()) == viable
        masked = canvas.num_masked
        step(canvas, logits_of(generator, length))
        assert canvas.num_masked < masked
        num_commits += masked - canvas.num_masked
        assert len(fillings(pattern, canvas.response)), (pattern, canvas.response)
        if generator.random() < 0.1 and canvas.finish_reason is None:
            # Masked again at random places, the rest is a response that holds tokens anywhere.
            kept = [place for place, id_ in enumerate(canvas.response) if id_ != MASK and generator.random() < 0.6]
            canvas = prepare({place: [canvas.response[place]] for place in kept})
    assert canvas.finish_reason == "stop"
    assert len(fillings(pattern, canvas.response))
    text_length = canvas.text_end.text_length
    assert not {MASK, EOS, EOT} & set(canvas.text_ids)
    assert canvas.response[text_length : text_length + 1] in ([], [EOS], [EOT])
    return num_commits


def test_after_every_step_an_answer_is_left_and_the_last_one_matches():
    assert sum(run_one(seed, longest=4) for seed in range(400)) > 400


@pytest.mark.fuzz
def test_after_every_step_an_answer_is_left_in_many_runs():
    assert sum(run_one(seed, longest=5) for seed in range(10_000, 14_000)) > 6000


def interference(seed):
    """Whether an unconstrained run gave an answer; then the constrained run must give the same."""
    generator = random.Random(seed)
    pattern, length = generator.choice(PATTERNS[:-1]), generator.randint(2, 4)
    constraint = constraint_of(pattern)
    if constraint.shortest > length:
        return None
    params = GenerationParams(**settings_of(generator, length))
    logits = logits_of(generator, length)
    # A model that leans towards some answer.
    logits[range(length), generator.choice(answers(pattern, length))] += generator.choice([2.0, 5.0])
    plain = prepare_response([0], params, VOCABULARY)
    canvas = prepare_response([0], params, VOCABULARY, constraint=constraint)
    for each in (plain, canvas):
        while each.finish_reason is None:
            step(each, logits + 0.1 * np.sin(np.arange(11) * (each.step + 1)))
    response = plain.response
    if not len(fillings(pattern, response)):
        return False
    assert (canvas.response, canvas.step) == (response, plain.step)
    return True


def test_a_constraint_never_alters_an_answer_that_satisfies_it():
    results = [interference(seed) for seed in range(400)]
    assert results.count(True) > 100
    assert results.count(False) > 100


@pytest.mark.fuzz
def test_a_constraint_never_alters_an_answer_in_many_runs():
    assert [interference(seed) for seed in range(1000, 6000)].count(True) > 1200


def exact_distribution(pattern, logits_LV, temperature):
    """The probability of each answer if positions are filled in random order, each with a draw among what is viable."""
    length = len(logits_LV)
    weights_LV = np.exp(logits_LV / temperature)
    probabilities = {}
    for order in permutations(range(length)):
        for answer in answers(pattern, length):
            probability, left = 1 / math.factorial(length), answers(pattern, length)
            for position in order:
                viable = np.unique(left[:, position])
                probability *= weights_LV[position, answer[position]] / weights_LV[position, viable].sum()
                left = left[left[:, position] == answer[position]]
            probabilities[tuple(answer)] = probabilities.get(tuple(answer), 0) + probability
    return probabilities


def assert_draws_follow(pattern, length, number):
    logits = np.random.default_rng(length).normal(size=(length, 11))
    expected = exact_distribution(pattern, logits, 0.8)
    assert sum(expected.values()) == pytest.approx(1)
    params = GenerationParams(gen_length=length, steps=1, temperature=0.8, remasking="random")
    canvases = prepare_responses([0], params, VOCABULARY, seeds=range(number), constraint=constraint_of(pattern))
    counts = dict.fromkeys(expected, 0)
    for canvas in canvases:
        step(canvas, logits)
        counts[tuple(canvas.response)] += 1
    # Answers that are rare are counted as one.
    rare = [answer for answer, probability in expected.items() if probability * number < 5]
    pairs = [(counts[answer], expected[answer] * number) for answer in expected if answer not in rare]
    pairs.append((sum(counts[answer] for answer in rare), sum(expected[answer] for answer in rare) * number))
    statistic = sum((count - mean) ** 2 / mean for count, mean in pairs if mean)
    degrees = len([mean for _, mean in pairs if mean]) - 1
    assert degrees > 3
    # Four standard deviations of chi-square.
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


@pytest.mark.parametrize(("pattern", "length"), [("(ab|ba)+", 3), ("[^a]{2,3}", 3)])
def test_draws_follow_the_documented_distribution(pattern, length):
    assert_draws_follow(pattern, length, 800)


@pytest.mark.fuzz
@pytest.mark.parametrize("pattern", [".{0,3}", "(a|b)*1", "a?é{1,2}"])
def test_many_draws_follow_the_documented_distribution(pattern):
    assert_draws_follow(pattern, 4 if pattern != ".{0,3}" else 3, 20_000)
