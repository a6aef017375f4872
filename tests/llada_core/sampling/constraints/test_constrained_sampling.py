"""Constrained canvases through the real sampler: any setting, any batch, any cache; errors; what is reported."""

import gc
import json
import random
import re
import weakref
from itertools import product

import pytest
import torch

from llada_core import GenerationParams, denoise, generate
from llada_core.errors import InvalidParameterError, NonFiniteLogitsError
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.events import Reporting
from llada_core.sampling.prepare import Vocabulary, prepare_response, prepare_responses
from llada_core.sampling.sampler import Sampler
from tests.vocabularies import tokenizer_from, vocabulary_of

SETTINGS = [
    {"gen_length": 16, "steps": 8, "block_length": 8},
    {"gen_length": 24, "block_length": 8, "temperature": 0.8, "seed": 3},
    {"gen_length": 19, "steps": 4, "block_length": 5, "remasking": "random", "seed": 4},
    {"gen_length": 20, "steps": 10, "cfg_scale": 1.5, "remasking": "margin"},
    {"gen_length": 12, "method": "semi_autoregressive_origin", "block_length": 4, "temperature": 1.2},
    {"gen_length": 16, "steps": 5, "method": "fixed_length", "remasking": "entropy", "cfg_scale": 0.5},
    {"gen_length": 14, "temperature": 1.0, "top_k": 20, "top_p": 0.9, "seed": 2**63},
    {"gen_length": 16, "confidence_eos_eot_inf": True, "temperature": 0.3, "min_tokens": 9},
    {"gen_length": 16, "block_length": 8, "confidence_threshold": 0.03, "cache": "dual", "cfg_scale": 1.0},
    {"gen_length": 12, "block_length": 4, "cache": "prefix", "temperature": 0.7, "cache_refresh_interval": 2},
    {"gen_length": 20, "entropy_bound": 4.0, "remasking": "margin"},
    {"gen_length": 14, "confidence_factor": 1.4, "cache": "dual", "method": "semi_autoregressive_origin"},
]
PATTERNS = [r'\{"a": (?:\d{1,3}|true|"[a-z]*")\}', r"(?:yes|no), \w+", r"[^é]{0,40}", r"(?:é|ü){3,5}"]


@pytest.fixture(scope="module")
def vocabulary(golden_models):
    """The golden model's ids, as bytes and words."""
    model = golden_models["tiny-mha"]
    return Vocabulary(model.shape, model.special_tokens, tokenizer_from(words()))


def words():
    letters = [bytes([byte]) for byte in range(256)]
    return [*letters, *sorted({"".join(pair).encode() for pair in product("yesno{a", repeat=2)})][:317]


@pytest.fixture(scope="module")
def constraints(vocabulary):
    return {pattern: compile_constraint(pattern, vocabulary) for pattern in PATTERNS}


def requests_of(constraints):
    generator = random.Random(0)
    for number, (pattern, setting) in enumerate(product(PATTERNS, SETTINGS)):
        prompt = [generator.randrange(300) for _ in range(1 + 5 * number % 23)]
        yield prompt, GenerationParams(**setting), constraints[pattern], pattern


def finish(model, canvases):
    sampler, running = Sampler(model), [canvas for canvas in canvases if canvas.finish_reason is None]
    while running:
        sampler.step(running)
        running = [canvas for canvas in running if canvas.finish_reason is None]


def text_of(canvas, vocabulary):
    return vocabulary.tokenizer.decode(canvas.text_ids)


def test_every_setting_gives_a_matching_answer_the_same_alone_and_in_a_batch(tiny, vocabulary, constraints):
    requests = list(requests_of(constraints))[::2]

    def prepare(number):
        prompt, params, constraint, _ = requests[number]
        # Some canvases of the batch have no constraint.
        return prepare_response(prompt, params, vocabulary, constraint=constraint if number % 3 else None)

    together = [prepare(number) for number in range(len(requests))]
    finish(tiny, together)
    for number, canvas in enumerate(together):
        alone = prepare(number)
        finish(tiny, [alone])
        assert (canvas.response, canvas.step) == (alone.response, alone.step)
        if number % 3:
            assert re.fullmatch(requests[number][3], text_of(canvas, vocabulary), re.ASCII)
            assert canvas.finish_reason == "stop"


def test_a_final_text_never_changes(tiny, vocabulary, constraints):
    for prompt, params, constraint, _ in list(requests_of(constraints))[::4]:
        canvas = prepare_response(prompt, params, vocabulary, constraint=constraint)
        sampler, final = Sampler(tiny), []
        while canvas.finish_reason is None:
            event = sampler.step([canvas])[0]
            assert canvas.response[: len(final)] == final
            final = canvas.response[: event.final_length]
        assert canvas.text_ids == final


def test_released_caches_are_filled_again_with_what_they_held(tiny, vocabulary, constraints):
    for cache in ("prefix", "dual"):
        params = GenerationParams(gen_length=24, block_length=8, cache=cache, temperature=0.5)
        kept, released = (
            prepare_response([1, 2, 3], params, vocabulary, constraint=constraints[PATTERNS[2]]) for _ in range(2)
        )
        sampler = Sampler(tiny)
        while kept.finish_reason is None:
            sampler.step([kept])
            sampler.step([released])
            released.caches = None
        assert released.response == kept.response


@pytest.mark.parametrize("setting", [{}, {"cfg_scale": 1.0}, {"temperature": 0.7, "top_p": 0.9}], ids=str)
def test_a_block_whose_logits_are_computed_in_parts_gets_the_same_tokens(
    tiny, vocabulary, constraints, monkeypatch, setting
):
    params = GenerationParams(gen_length=40, steps=10, method="fixed_length", **setting)
    canvases = [
        [prepare_response([1, 2], params, vocabulary, constraint=constraints[pattern]) for pattern in PATTERNS]
        for _ in range(2)
    ]
    finish(tiny, canvases[0])
    monkeypatch.setattr("llada_core.sampling.sampler.MAX_HEAD_ROWS", 16)
    finish(tiny, canvases[1])
    for whole, parts in zip(*canvases, strict=True):
        assert whole.response == parts.response
        assert whole.finish_reason == "stop"


def test_a_step_that_fails_for_one_canvas_leaves_all_as_they_were(tiny, vocabulary, constraints, monkeypatch):
    params = GenerationParams(gen_length=16)
    canvases = [
        prepare_response([1], params, vocabulary, constraint=constraint)
        for constraint in (constraints[PATTERNS[0]], None)
    ]
    head = type(tiny).head
    for number_of_nan in (0, -1):

        def spoilt(self, hidden_RE, row=number_of_nan):
            logits_RV = head(self, hidden_RE)
            logits_RV[row] = torch.nan
            return logits_RV

        with monkeypatch.context() as patched:
            patched.setattr(type(tiny), "head", spoilt)
            with pytest.raises(NonFiniteLogitsError):
                Sampler(tiny).step(canvases)
        assert [(canvas.step, canvas.num_masked) for canvas in canvases] == [(0, 16)] * 2


def test_predictions_hold_no_token_that_the_active_block_cannot_have(tiny, vocabulary, constraints):
    params = GenerationParams(gen_length=16, block_length=8)
    reporting = Reporting(include_predictions=True, num_alternatives=2)
    canvas = prepare_response([1, 2], params, vocabulary, constraint=constraints[PATTERNS[0]], reporting=reporting)
    sampler = Sampler(tiny)
    while canvas.finish_reason is None:
        block = canvas.schedule.block
        (event,) = sampler.step([canvas])
        masked = [place for place, id_ in enumerate(canvas.response) if id_ == 319]
        assert {guess.position for guess in event.predictions} <= set(masked)
        if canvas.schedule.block == block if not canvas.schedule.is_over else False:
            left = canvas.progress.fillings(canvas.tokens[2:], block.stop)
            for guess in event.predictions:
                if guess.position < block.stop:
                    assert guess.token_id in left.viable_tokens(guess.position - block.start).ids_M
        assert all(len(change.alternatives) == 2 for change in event.changes)


def test_pinned_tokens_stay_and_the_rest_is_fitted_around_them(tiny, vocabulary, constraints):
    tokenizer = vocabulary.tokenizer
    for block_length in (2, 4, 12):
        params = GenerationParams(gen_length=12, block_length=block_length)
        canvas = prepare_response(
            [1], params, vocabulary, pinned={1: list(b"o, "), 9: list(b"z")}, constraint=constraints[PATTERNS[1]]
        )
        finish(tiny, [canvas])
        text = tokenizer.decode(canvas.text_ids)
        assert re.fullmatch(PATTERNS[1], text, re.ASCII)
        assert canvas.response[:4] == list(b"no, ")
        assert canvas.response[9] == ord("z")


def test_a_pinned_token_that_admits_no_answer_is_named(vocabulary, constraints):
    def prepare(pinned, **params):
        params = GenerationParams(gen_length=12, **params)
        return prepare_response([1], params, vocabulary, pinned=pinned, constraint=constraints[PATTERNS[1]])

    for pinned, position in (({0: list(b"x")}, 0), ({1: list(b"e"), 11: list(b",")}, 11), ({4: [317], 7: [65]}, 7)):
        with pytest.raises(InvalidParameterError, match=f"with the token at position {position} no answer of 12"):
            prepare(pinned)
    assert prepare({0: list(b"no, ok"), 6: [317] * 6}).finish_reason == "stop"


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"stop": ("x",)}, "stop"),
        ({"stop_token_ids": frozenset({5})}, "stop_token_ids"),
        ({"ignore_eos": True}, "ignore_eos"),
        ({"logits_eos_inf": True}, "logits_eos_inf"),
    ],
)
def test_settings_that_a_constraint_excludes_are_refused_by_name(vocabulary, constraints, setting, field):
    with pytest.raises(InvalidParameterError, match=f"^{field} is .*it must be absent") as caught:
        prepare_response(
            [1], GenerationParams(gen_length=16, **setting), vocabulary, constraint=constraints[PATTERNS[0]]
        )
    assert caught.value.field == field


def test_a_suffix_or_another_vocabulary_or_too_short_a_canvas_is_refused(vocabulary, constraints):
    constraint = constraints[PATTERNS[3]]
    with pytest.raises(InvalidParameterError, match="suffix is 2 tokens long; it must be absent"):
        prepare_response([1], GenerationParams(gen_length=9), vocabulary, constraint=constraint, suffix=[1, 2])
    with pytest.raises(InvalidParameterError, match="gen_length is 5; the shortest matching answer takes 6 tokens"):
        prepare_response([1], GenerationParams(gen_length=5), vocabulary, constraint=constraint)
    with pytest.raises(InvalidParameterError, match="constraint is for 320 token ids; this model has 1024"):
        prepare_response([1], GenerationParams(gen_length=9), vocabulary_of(1024), constraint=constraint)


def test_an_answer_as_long_as_the_canvas_needs_no_end(tiny, vocabulary):
    constraint = compile_constraint("[ab]{7}", vocabulary)
    for steps in (7, 2, 1):
        canvas = prepare_response([3], GenerationParams(gen_length=7, steps=steps), vocabulary, constraint=constraint)
        finish(tiny, [canvas])
        assert re.fullmatch("[ab]{7}", text_of(canvas, vocabulary))
        assert canvas.finish_reason == "stop"


def test_an_answer_may_be_empty(tiny, vocabulary):
    canvas = prepare_response(
        [3], GenerationParams(gen_length=7), vocabulary, constraint=compile_constraint("", vocabulary)
    )
    finish(tiny, [canvas])
    assert (canvas.text_ids, canvas.finish_reason) == ([], "stop")


def test_a_text_that_has_ended_stops_early(tiny, vocabulary):
    constraint = compile_constraint("ab", vocabulary)
    canvas = prepare_response([3], GenerationParams(gen_length=64, block_length=8), vocabulary, constraint=constraint)
    finish(tiny, [canvas])
    assert canvas.num_masked >= 56
    assert text_of(canvas, vocabulary) == "ab"


def test_canvases_of_one_request_share_the_constraint_and_nothing_that_changes(tiny, vocabulary, constraints):
    params = GenerationParams(gen_length=20, block_length=4, temperature=1.0)
    first, second = prepare_responses([1], params, vocabulary, seeds=(5, 6), constraint=constraints[PATTERNS[2]])
    assert first.progress.constraint is second.progress.constraint
    finish(tiny, [first])
    assert second.num_masked == 20
    finish(tiny, [second])
    assert first.response != second.response


def test_the_offline_loops_take_a_constraint(demo, demo_tokenizer):
    constraint = compile_constraint(r'\{"capital": "[A-Z][a-z]+"\}', Vocabulary.of(demo, demo_tokenizer))
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    (result,) = generate(demo, [chat], tokenizer=demo_tokenizer, gen_length=24, constraint=constraint)
    assert set(json.loads(result.text)) == {"capital"}
    assert result.finish_reason == "stop"
    events = list(denoise(demo, chat, tokenizer=demo_tokenizer, gen_length=24, constraint=constraint))
    assert len(events) == result.denoising_steps


def test_a_constraint_that_nobody_uses_any_more_is_freed(tiny, vocabulary):
    constraint = compile_constraint(r"[^é]{9}, no", vocabulary)
    canvas = prepare_response([1], GenerationParams(gen_length=16), vocabulary, constraint=constraint)
    finish(tiny, [canvas])
    reference = weakref.ref(constraint)
    del canvas, constraint
    gc.collect()
    assert reference() is None
