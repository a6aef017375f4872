"""Runs on a small vocabulary, judged by trying every answer."""

import random

import numpy as np
import pytest

from llada_core.errors import InvalidParameterError
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import prepare_response
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
            assert set(left.viable_tokens(position - block.start).ids_M.tolist()) == viable
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
