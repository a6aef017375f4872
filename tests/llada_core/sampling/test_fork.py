"""Runs that go on from a frame of another run."""

import re
from collections import Counter

import numpy as np
import pytest
import torch

from llada_core.diffusion.guidance import guide
from llada_core.errors import InvalidParameterError
from llada_core.model.packed import PackedTokens, Rows
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.events import Reporting
from llada_core.sampling.fork import Edits, frame_at, prepare_fork
from llada_core.sampling.params import RANDOM_REMASKING, GenerationParams
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response
from llada_core.sampling.sampler import Sampler

REPORTING = Reporting(num_alternatives=2)
NO_EDITS = Edits()
# `exact` is for block-causal models only.
CACHES = [name for name in CACHE_POLICIES if name != "exact"]
RULES = [
    {},
    {"steps": 5},
    {"steps": 30},
    {"temperature": 1.0, "seed": 3, "top_k": 40, "top_p": 0.9},
    {"remasking": "random", "temperature": 0.7, "steps": 7},
    {"remasking": "margin", "steps": 7},
    {"remasking": "margin", "remasking_temperature": 0.5, "steps_per_block": 3},
    {"schedule": "timestep", "eps": 0.1, "steps": 5},
    {"schedule": "timestep", "remasking": "origin", "steps": 9, "temperature": 1.0},
    {"remasking": "entropy", "confidence_eos_eot_inf": True},
    {"confidence_threshold": 0.01, "temperature": 1.0},
    {"confidence_factor": 1.7},
    {"entropy_bound": 6.0, "remasking": "entropy"},
    {"cfg_scale": 1.5, "temperature": 1.0, "logits_eos_inf": True},
    {"method": "semi_autoregressive_origin", "steps": 7, "temperature": 1.0},
    {"method": "fixed_length", "block_length": None, "steps": 7},
    {"ignore_eos": False, "stop_token_ids": frozenset(range(0, 320, 5)), "min_tokens": 4, "temperature": 1.0},
    {"cache": "prefix", "temperature": 1.0},
    {"cache": "dual", "steps": 7, "temperature": 1.0},
    {"cache": "dual", "cache_refresh_interval": 2, "cfg_scale": 0.7, "temperature": 1.0},
    {"cache": "prefix", "cache_refresh_interval": 4, "entropy_bound": 6.0},
    {"cache": "dual", "method": "semi_autoregressive_origin", "confidence_threshold": 0.01, "temperature": 1.0},
    {"cache": "delayed", "temperature": 1.0, "suffix_window": 3},
    {"cache": "delayed", "cache_refresh_interval": 4, "entropy_bound": 6.0, "cfg_scale": 0.5},
    {"cache": "delayed", "entropy_threshold": 4.0, "active_blocks": 2, "temperature": 1.0, "block_length": 4},
    {"cache": "dual", "confidence_threshold": 0.01, "active_blocks": 3, "block_length": 4, "suffix_window": 2},
]


def run(model, canvases):
    """Run canvases together; for each its events."""
    sampler, events = Sampler(model), {id(canvas): [] for canvas in canvases}
    while waiting := [canvas for canvas in canvases if canvas.finish_reason is None]:
        for canvas, event in zip(waiting, sampler.step(waiting), strict=True):
            events[id(canvas)].append(event)
    return [events[id(canvas)] for canvas in canvases]


def changes_of(events):
    return [change for event in events for change in event.changes]


def places_of(events):
    return [(event.block, [change.position for change in event.changes]) for event in events]


def fork(model, parent, changes, step, *, edits=NO_EDITS, vocabulary=None, **settings):
    params = parent.params.altered(**settings)
    frame = frame_at(parent, changes, step)
    return prepare_fork(
        parent, frame, params, vocabulary or Vocabulary.of(model), edits=edits, reporting=parent.reporting
    )


def response_to(model, prompt=(1, 2, 3), pinned=None, suffix=(), reporting=REPORTING, **settings):
    params = GenerationParams(**{"gen_length": 14, "block_length": 6, "ignore_eos": True, **settings})
    return prepare_response(
        list(prompt), params, Vocabulary.of(model), pinned=pinned, suffix=suffix, reporting=reporting
    )


def infilling(model, **settings):
    segments = [[5, 6], Gap(5), [8], Gap(3), [9] * 6, Gap(2)]
    params = GenerationParams(**{"block_length": 6, "temperature": 1.0, **settings})
    return prepare_infilling(segments, params, Vocabulary.of(model), reporting=REPORTING)


def assert_forks_are_the_rest(model, parent):
    (events,) = run(model, [parent])
    assert events
    changes = changes_of(events)
    forks = [fork(model, parent, changes, step) for step in range(len(events) + 1)]
    for step, (canvas, rest) in enumerate(zip(forks, run(model, forks), strict=True)):
        assert rest == events[step:], step
        assert (canvas.response, canvas.finish_reason) == (parent.response, parent.finish_reason)
        assert canvas.forward_passes == parent.forward_passes * (len(events) - step) // len(events)
    # A fork of a fork is one of the parent, from any step of the first.
    first = forks[len(events) // 3]
    kept = [change for change in changes if change.step >= first.start.step]
    second = [fork(model, first, kept, step) for step in range(first.start.step, len(events) + 1)]
    for canvas, rest in zip(second, run(model, second), strict=True):
        assert rest == events[canvas.start.step :]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_fork_without_edits_is_the_rest_of_its_parent(tiny, rule):
    assert_forks_are_the_rest(tiny, response_to(tiny, **rule))


@pytest.mark.parametrize(
    "rule",
    [
        *({"cache": cache} for cache in CACHES),
        {"cache": "dual", "cache_refresh_interval": 2, "cfg_scale": 0.7},
        {"cache": "dual", "method": "semi_autoregressive_origin"},
        {"cache": "dual", "remasking": "random", "steps": 7},
        {"cache": "dual", "entropy_bound": 2.0, "active_blocks": 2},
    ],
    ids=str,
)
def test_its_guesses_are_those_of_its_parent_too(tiny, rule):
    reporting = Reporting(include_predictions=True)
    assert_forks_are_the_rest(tiny, response_to(tiny, temperature=1.0, reporting=reporting, **rule))


@pytest.mark.parametrize("cache", CACHES)
def test_so_it_is_with_gaps_pins_and_a_suffix(tiny, cache):
    settings = {"cache": cache, "temperature": 1.0, "cfg_scale": 0.5}
    assert_forks_are_the_rest(tiny, infilling(tiny, **settings))
    assert_forks_are_the_rest(tiny, infilling(tiny, **settings, steps=5))
    assert_forks_are_the_rest(tiny, response_to(tiny, pinned={3: [7, 8], 12: [9]}, **settings, steps=8))
    assert_forks_are_the_rest(tiny, response_to(tiny, suffix=(4, 5), **settings))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_fork_whose_tokens_are_all_masked_again_is_a_fresh_run(tiny, rule):
    # Only the number of the step, which the noise hangs on, tells them apart.
    rule = {**rule, "temperature": 0.0}
    parent = response_to(tiny, **rule, pinned={4: [7]})
    (events,) = run(tiny, [parent])
    free = [position for position in range(14) if position != 4]
    is_random = rule.get("remasking") in RANDOM_REMASKING or "remasking_temperature" in rule
    step = 0 if is_random else len(events)
    canvas = fork(tiny, parent, changes_of(events), step, edits=Edits(remask=free))
    assert canvas.num_masked == 13
    (again,) = run(tiny, [canvas])
    shapes = [
        [(event.block, [change.position for change in event.changes]) for event in run] for run in (events, again)
    ]
    assert shapes[0] == shapes[1]
    assert canvas.response == parent.response


def test_a_reopened_block_spreads_its_masks_over_the_steps_it_had(tiny):
    parent = response_to(tiny, gen_length=24, block_length=12, steps=8)
    (events,) = run(tiny, [parent])
    assert [len(event.changes) for event in events] == [3] * 8
    changes = changes_of(events)
    edits = Edits(remask=[0, 1, 2, 3, 4, 5, 13])
    (again,) = run(tiny, [fork(tiny, parent, changes, 8, edits=edits)])
    assert [(event.step, event.block, len(event.changes)) for event in again] == [
        (8, 0, 2), (9, 0, 2), (10, 0, 1), (11, 0, 1), (12, 1, 1),
    ]  # fmt: skip
    # The second block is at its second step, and untouched: it goes on as it was.
    mixed = fork(tiny, parent, changes, 5, edits=Edits(remask=[2, 3]))
    assert [(block.index, block.transfers) for block in mixed.start.blocks] == [(0, (1, 1)), (1, (3, 3, 3))]
    assert mixed.params.steps == 5
    # An edited one does not: nine masks and one over the block's four steps.
    position = next(change.position for change in changes if change.step == 4)
    edited = fork(tiny, parent, changes, 5, edits=Edits(remask=[position]))
    assert [(block.index, block.transfers) for block in edited.start.blocks] == [(1, (3, 3, 2, 2))]


def test_steps_beside_a_fork_are_those_that_are_left(tiny):
    parent = response_to(tiny, gen_length=12, block_length=6)
    (events,) = run(tiny, [parent])
    quick = fork(tiny, parent, changes_of(events), 4, steps=2)
    assert [block.transfers for block in quick.start.blocks] == [(2,), (6,)]
    assert quick.params.steps == 2
    (rest,) = run(tiny, [quick])
    assert [event.step for event in rest] == [4, 5]
    # A fork of it has blocks that had no share in them: these keep the parent's.
    again = fork(tiny, quick, changes_of(rest), 6, edits=Edits(remask=[0, 1, 11]))
    assert [block.transfers for block in again.start.blocks] == [(2,), (1,)]
    with pytest.raises(InvalidParameterError, match="at least the number of blocks"):
        fork(tiny, parent, changes_of(events), 4, steps=1)


def test_another_schedule_spreads_the_masks_anew(tiny):
    parent = response_to(tiny, gen_length=12, block_length=6, steps_per_block=3)
    (events,) = run(tiny, [parent])
    changes = changes_of(events)
    assert [block.transfers for block in parent.start.blocks] == [(2, 2, 2), (2, 2, 2)]
    assert (parent.params.steps, parent.start.num_steps) == (None, 6)
    kept = fork(tiny, parent, changes, 1)
    assert (kept.params.steps_per_block, kept.start.num_steps) == (3, 5)
    timed = fork(tiny, parent, changes, 1, schedule="timestep", steps_per_block=2)
    assert [block.transfers for block in timed.start.blocks] == [(1, 3), (2, 4)]
    chance = fork(tiny, parent, changes, 1, schedule="timestep", remasking="origin").start.blocks[0]
    assert (chance.transfers, chance.chances) == (None, pytest.approx((1 / 3, 1 / 2, 1), abs=1e-3))
    assert [block.transfers for block in fork(tiny, parent, changes, 1, steps=2).start.blocks] == [(4,), (6,)]


def test_other_settings_apply_from_the_fork_on(tiny):
    parent = response_to(tiny, temperature=1.0, seed=1, entropy_bound=6.0, cache="dual", cache_refresh_interval=3)
    (events,) = run(tiny, [parent])
    changes = changes_of(events)
    for settings in ({"seed": 2}, {"temperature": 0.5}, {"cfg_scale": 2.0}, {"steps": 9}, {"preset": "exact"}):
        canvas = fork(tiny, parent, changes, 2, **settings)
        assert run(tiny, [canvas])[0] != events[2:]
        assert canvas.response[:6] != parent.response[:6] or canvas.response != parent.response
        kept = [change for change in changes if change.step < 2]
        assert all(canvas.response[change.position] == change.token_id for change in kept)
    exact = fork(tiny, parent, changes, 2, preset="exact").params
    assert (exact.parallel_rule, exact.cache, exact.cache_refresh_interval) == (None, "none", None)
    assert fork(tiny, parent, changes, 2, steps=9).params.parallel_rule is None
    assert fork(tiny, parent, changes, 2, remasking="random").params.parallel_rule is None
    assert fork(tiny, parent, changes, 2, confidence_threshold=0.5).params.entropy_bound is None
    assert fork(tiny, parent, changes, 2, cache="none").params.cache_refresh_interval is None


def test_an_edit_is_seen_by_the_next_step_whatever_the_cache(tiny):
    edits = Edits(set={1: [40, 41]})
    for cache in ("prefix", "dual", "delayed"):
        parent = response_to(tiny, cache=cache)
        (events,) = run(tiny, [parent])
        canvas = fork(tiny, parent, changes_of(events), 9, edits=edits)
        assert canvas.schedule.is_refresh and canvas.start.refresh_step is None
        plain = fork(tiny, parent, changes_of(events), 9, edits=edits, cache="none")
        first, expected = (Sampler(tiny).step([one])[0] for one in (canvas, plain))
        assert first == expected


def test_a_word_set_in_the_place_of_an_end_lets_the_text_go_on(tiny):
    parent = response_to(tiny, stop_token_ids=frozenset(range(0, 320, 4)), seed=5, temperature=1.0)
    (events,) = run(tiny, [parent])
    assert parent.finish_reason == "stop" and parent.num_masked
    end = parent.text_end.final_length
    canvas = fork(tiny, parent, changes_of(events), len(events), edits=Edits(set={end: [41]}))
    assert canvas.finish_reason is None
    run(tiny, [canvas])
    assert canvas.text_end.final_length > end and canvas.response[end] == 41


def test_an_edit_can_end_the_text_at_once(demo, demo_tokenizer):
    vocabulary = Vocabulary.of(demo, demo_tokenizer)
    params = GenerationParams(gen_length=6, block_length=6, stop=("red fox",))
    parent = prepare_response([1], params, vocabulary)
    ids = demo_tokenizer.encode_plain("A red fox")
    canvas = fork(demo, parent, [], 0, edits=Edits(set={0: ids}), vocabulary=vocabulary)
    assert (canvas.finish_reason, demo_tokenizer.decode(canvas.text_ids)) == ("stop", "A")
    ended = fork(demo, parent, [], 0, edits=Edits(set={0: [ids[0], demo.special_tokens.eos_id]}), vocabulary=vocabulary)
    assert (ended.finish_reason, ended.text_ids) == ("stop", ids[:1])


@pytest.mark.parametrize(
    ("edits", "field", "message"),
    [
        (Edits(set={14: [1]}), "fork.set.14", "position 14; the response has positions 0 to 13"),
        (Edits(set={12: [1, 2, 3]}), "fork.set.12", "3 tokens from position 12 on; the response has positions 0 to 13"),
        (Edits(set={-1: [1]}), "fork.set.-1", "the response has positions"),
        (Edits(set={3: []}), "fork.set.3", "at least 1"),
        (Edits(set={3: [319]}), "fork.set.3", "mask id"),
        (Edits(set={3: [400]}), "fork.set.3", "from 0 to 319"),
        (Edits(set={3: [1, 2], 4: [1]}), "fork.set.4", "position 4; no position may be changed twice"),
        (Edits(set={4: [1, 2]}), "fork.set.4", "tokens fixed from the start cannot be changed"),
        (Edits(remask=[5]), "fork.remask", "position 5; tokens fixed from the start cannot be changed"),
        (Edits(remask=[3, 3]), "fork.remask", "position 3; no position may be changed twice"),
        (Edits(remask=[14]), "fork.remask", "position 14; the response has positions 0 to 13"),
        (Edits(remask=[-1]), "fork.remask", "position -1"),
        (Edits(set={3: [1]}, remask=[3]), "fork.remask", "changed twice"),
    ],
    ids=str,
)
def test_edits_that_cannot_be_made_are_refused_by_name(tiny, edits, field, message):
    parent = response_to(tiny, pinned={5: [9]})
    with pytest.raises(InvalidParameterError) as error:
        fork(tiny, parent, [], 0, edits=edits)
    assert error.value.field == field and message in str(error.value)


def test_settings_that_no_canvas_may_have_are_refused_in_a_fork_too(tiny):
    parent, gaps = response_to(tiny, entropy_bound=1.0), infilling(tiny)
    for canvas, settings, field in (
        (parent, {"stop_token_ids": frozenset([500])}, "stop_token_ids"),
        (parent, {"logit_bias": {500: 1.0}}, "logit_bias"),
        (parent, {"stop": ("x",)}, "stop"),
        (parent, {"min_tokens": 15}, "min_tokens"),
        (gaps, {"stop_token_ids": frozenset([5])}, "stop_token_ids"),
    ):
        with pytest.raises(InvalidParameterError) as error:
            fork(tiny, canvas, [], 0, **settings)
        assert error.value.field == field


@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
@pytest.mark.parametrize("method", ["semi_autoregressive_padding", "semi_autoregressive_origin"])
def test_reading_gives_the_softmax_of_the_logits_at_every_visible_mask_and_changes_nothing(tiny, cfg_scale, method):
    reporting = Reporting(num_alternatives=7)
    params = GenerationParams(
        gen_length=12, block_length=6, cfg_scale=cfg_scale, method=method, cache="dual", logit_bias={9: 5.0}
    )
    canvas = prepare_response([1, 2, 3], params, Vocabulary.of(tiny), pinned={2: [40]}, reporting=reporting)
    Sampler(tiny).step([canvas])
    before = canvas.tokens.copy(), canvas.step, canvas.caches
    positions_R, proposals = Sampler(tiny).read(canvas)
    assert (canvas.tokens == before[0]).all() and (canvas.step, canvas.caches) == before[1:]
    visible = canvas.tokens[: canvas.visible_length]
    expected = [int(i) - 3 for i in np.flatnonzero(visible == 319)]
    assert positions_R.tolist() == expected
    logits = [
        logits_of(tiny, ids[: len(visible)], positions_R + 3)
        for ids in canvas.layout.passes(canvas.tokens, is_guided=True)
    ]
    logits_RV = guide(*logits, cfg_scale) if cfg_scale else logits[0]
    logits_RV[:, 9] += 5
    probabilities_RV = logits_RV.double().softmax(dim=1)
    probabilities_RV[:, 319] = 0
    top = probabilities_RV.topk(7, dim=1)
    assert proposals.alternative_ids_AR.T.astype(int).tolist() == top.indices.tolist()
    assert np.allclose(proposals.alternative_probabilities_AR.T, top.values, atol=1e-6)


def logits_of(model, ids, rows):
    with torch.inference_mode():
        packed = PackedTokens(torch.from_numpy(ids), (len(ids),))
        logits_RV = model.head(model.hidden_states(packed, Rows(torch.from_numpy(rows), (len(rows),)))).float()
    return logits_RV.clone()


def test_frames_count_what_was_written_before_them(tiny):
    parent = response_to(tiny, steps=7)
    (events,) = run(tiny, [parent])
    changes = changes_of(events)
    masks = [int((frame_at(parent, changes, step).tokens == 319).sum()) for step in range(len(events) + 1)]
    assert masks == [14, *(event.masked for event in events)]
    assert Counter(change.step for change in changes).total() == 14


PATTERN = r"[0-9]{1,3} (cats|dogs), (red|blue|green)"


@pytest.fixture(scope="module")
def constrained(babbler, demo_tokenizer):
    """Makes responses that match the pattern; and the vocabulary."""
    vocabulary = Vocabulary.of(babbler, demo_tokenizer)
    constraint = compile_constraint(PATTERN, vocabulary)

    def make(**settings):
        params = GenerationParams(**{"gen_length": 12, "block_length": 5, "temperature": 1.0, **settings})
        return prepare_response([20, 30], params, vocabulary, constraint=constraint, reporting=REPORTING)

    return make, vocabulary


@pytest.mark.parametrize(
    "rule",
    [{}, {"steps": 5, "seed": 2}, {"confidence_threshold": 0.2}, {"cache": "dual", "remasking": "entropy", "seed": 3}],
    ids=str,
)
def test_a_fork_keeps_the_constraint_of_its_parent(babbler, demo_tokenizer, constrained, rule):
    make, vocabulary = constrained
    parent = make(**rule)
    (events,) = run(babbler, [parent])
    changes = changes_of(events)
    forks = [fork(babbler, parent, changes, step, vocabulary=vocabulary) for step in range(len(events) + 1)]
    for step, rest in enumerate(run(babbler, forks)):
        assert rest == events[step:], step
    # Whatever is masked again, the answer matches.
    edited = [
        fork(babbler, parent, changes, len(events), edits=Edits(remask=remask), vocabulary=vocabulary, seed=seed)
        for seed, remask in enumerate([[0], [1, 2], [0, 3, 6], range(5), range(12)])
    ]
    run(babbler, edited)
    for canvas in [parent, *edited]:
        assert re.fullmatch(PATTERN, demo_tokenizer.decode(canvas.text_ids)), canvas.text_ids
        assert canvas.finish_reason == "stop"


def test_a_word_that_the_constraint_rules_out_is_refused_with_its_position(babbler, demo_tokenizer, constrained):
    make, vocabulary = constrained
    parent = make()
    seven, blue, cats = (demo_tokenizer.encode_plain(text) for text in ("7", " blue", " cats"))
    edits = Edits(set={0: seven, 1: cats})
    canvas = fork(babbler, parent, [], 0, edits=edits, vocabulary=vocabulary)
    run(babbler, [canvas])
    assert re.fullmatch("7 cats, (red|blue|green)", demo_tokenizer.decode(canvas.text_ids))
    for wrong, position in (({0: blue}, 0), ({0: seven, 1: blue}, 1), ({11: seven}, 11)):
        with pytest.raises(InvalidParameterError) as error:
            fork(babbler, parent, [], 0, edits=Edits(set=wrong), vocabulary=vocabulary)
        assert error.value.field == "fork.set"
        assert f"fork.set: with the token at position {position} no answer" in str(error.value)
    with pytest.raises(InvalidParameterError, match="stop is"):
        fork(babbler, parent, [], 0, vocabulary=vocabulary, stop=("x",))
