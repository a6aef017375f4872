from dataclasses import replace

import numpy as np
import pytest
import torch

from llada_core import GenerationParams, denoise
from llada_core.model.packed import PackedTokens
from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.prepare import Vocabulary, prepare_response

ORDERED = np.array([0.97, 0.95, 0.8, 0.62, 0.3])
ENTROPIES = np.array([0.05, 0.04, 0.2, 0.02, 0.9])


@pytest.mark.parametrize(
    ("rule", "value", "committed"),
    [
        ("confidence_threshold", 0.9, [1, 1, 0, 0, 0]),
        ("confidence_threshold", 0.62, [1, 1, 1, 1, 0]),
        # Bounds 1 - 1/2, 1 - 1/3, 1 - 1/4, 1 - 1/5: the fourth is missed.
        ("confidence_factor", 1.0, [1, 1, 1, 0, 0]),
        ("confidence_factor", 0.1, [1, 0, 0, 0, 0]),
        # Σ H - max H: 0, .04, .09, .11, .31.
        ("entropy_bound", 0.1, [1, 1, 1, 0, 0]),
        ("entropy_bound", 0.0, [1, 0, 0, 0, 0]),
        ("entropy_bound", 1.0, [1, 1, 1, 1, 1]),
        ("entropy_threshold", 0.05, [1, 1, 0, 1, 0]),
    ],
)
def test_parallel_rules_commit_what_their_definitions_say(rule, value, committed):
    assert PARALLEL_RULES[rule].choose(ORDERED, ENTROPIES, value).tolist() == [bool(sure) for sure in committed]


@pytest.mark.parametrize("rule", PARALLEL_RULES)
def test_a_step_commits_at_least_one_token_under_every_rule(tiny, rule):
    strictest = {"confidence_threshold": 1.0, "confidence_factor": 1e-9}.get(rule, 0.0)
    steps = list(denoise(tiny, [1, 2], GenerationParams(gen_length=6, ignore_eos=True, **{rule: strictest})))
    assert [len(step.changes) for step in steps] == [1] * 6


@pytest.mark.parametrize("rule", PARALLEL_RULES)
def test_the_loosest_rule_fills_a_block_at_once(tiny, rule):
    loosest = {"confidence_threshold": 1e-9, "confidence_factor": 1e6}.get(rule, 1e6)
    params = GenerationParams(gen_length=6, block_length=3, ignore_eos=True, **{rule: loosest})
    assert [len(step.changes) for step in denoise(tiny, [1, 2], params)] == [3, 3]


def test_the_entropy_bound_uses_the_entropies_of_the_step(tiny):
    # A bound that lies between the two smallest sums of the first step admits exactly two tokens.
    exact = GenerationParams(gen_length=4, remasking="entropy", ignore_eos=True)
    canvas = prepare_response([1, 2], exact, Vocabulary.of(tiny))
    packed = PackedTokens(torch.from_numpy(canvas.tokens), (6,))
    with torch.inference_mode():
        probabilities = tiny.head(tiny.hidden_states(packed))[2:].double().softmax(dim=1)
    entropies = sorted((-(probabilities * probabilities.log()).sum(dim=1)).tolist())
    bound = (entropies[0] + entropies[0] + entropies[1]) / 2
    first = next(denoise(tiny, [1, 2], replace(exact, entropy_bound=bound)))
    assert len(first.changes) == 2
