"""Requests whose tokens begin alike share finished blocks: with the same tokens, whatever else runs or is evicted."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_core import GenerationParams, generate, load_model
from llada_core.errors import NonFiniteLogitsError
from llada_core.model.prefix_pool import PrefixPool
from llada_core.sampling.events import Reporting
from llada_core.sampling.fork import frame_at, prepare_fork
from llada_core.sampling.generate import finish
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.llada_core.model.architectures.test_family import FAMILY
from tests.random_cases import cases

PROMPT = list(range(20, 52))
FIELDS = {"gen_length": 20, "block_length": 8, "steps_per_block": 4, "cache": "exact", "ignore_eos": True}
PLENTY = 1 << 24


def canvas_of(model, prompt=PROMPT, **fields):
    return prepare_response(prompt, GenerationParams(**{**FIELDS, **fields}), Vocabulary.of(model))


def steps_of(sampler, *canvases):
    steps = []
    while running := [canvas for canvas in canvases if canvas.finish_reason is None]:
        steps += sampler.step(running)
    return steps


def alone(model, *args, **fields):
    """The response without a pool."""
    canvas = canvas_of(model, *args, **fields)
    steps_of(Sampler(model), canvas)
    return canvas.response


def sampler_of(model, max_bytes=PLENTY):
    pool = PrefixPool(model, max_bytes)
    return Sampler(model, pool), pool


def test_the_second_turn_of_a_chat_computes_nothing_of_the_first(sdar):
    sampler, _ = sampler_of(sdar)
    turn = canvas_of(sdar, gen_length=24)
    first, *_ = steps_of(sampler, turn)
    assert (first.queried_tokens, first.reused_tokens, first.cache_passes) == (32, 0, 1)
    # All but the answer's last block, which no later step needed.
    longer = PROMPT + turn.response + list(range(60, 73))
    first, *rest = steps_of(sampler, canvas_of(sdar, longer))
    assert (first.queried_tokens, first.reused_tokens, first.cache_passes) == (64, 48, 1)
    assert all((step.queried_tokens, step.reused_tokens) == (0, 0) for step in rest)
    again = canvas_of(sdar, longer)
    first, *_ = steps_of(sampler, again)
    assert (first.reused_tokens, first.cache_passes) == (64, 0)
    assert again.response == alone(sdar, longer)


@pytest.mark.parametrize("changed", [0, 9, 31])
def test_a_token_that_differs_shares_nothing_from_its_block_on(sdar, changed):
    sampler, _ = sampler_of(sdar)
    steps_of(sampler, canvas_of(sdar))
    prompt = [*PROMPT[:changed], 99, *PROMPT[changed + 1 :]]
    first, *_ = steps_of(sampler, canvas := canvas_of(sdar, prompt))
    assert first.reused_tokens == changed // 8 * 8
    assert canvas.response == alone(sdar, prompt)


def test_blocks_of_another_length_are_others(sdar):
    sampler, _ = sampler_of(sdar)
    steps_of(sampler, canvas_of(sdar))
    first, *_ = steps_of(sampler, canvas := canvas_of(sdar, block_length=4))
    assert first.reused_tokens == 0
    assert canvas.response == alone(sdar, block_length=4)


def test_the_pool_keeps_the_models_apart_and_their_dtypes(sdar, llada2):
    with pytest.raises(AssertionError):
        Sampler(sdar, PrefixPool(llada2, PLENTY))
    network = load_model(FAMILY / "sdar" / "models" / "tiny-variant", dtype="bfloat16")
    sampler, _ = sampler_of(network)
    assert steps_of(sampler, canvas_of(network))[0].reused_tokens == 0
    assert steps_of(sampler, canvas_of(network))[0].reused_tokens == 32


@pytest.mark.parametrize("num_choices", [2, 5])
def test_choices_of_one_prompt_compute_it_once(sdar, num_choices, monkeypatch):
    sampler, _ = sampler_of(sdar)
    canvases = [canvas_of(sdar, temperature=1.0, seed=seed) for seed in range(num_choices)]
    lengths, hidden_states = [], sdar.hidden_states

    def watched(packed, rows=None):
        lengths.append(packed.lengths)
        return hidden_states(packed, rows)

    monkeypatch.setattr(sdar, "hidden_states", watched)
    steps = sampler.step(canvases)
    assert lengths == [(32,), (8,) * num_choices]
    assert [step.cache_passes for step in steps] == [1] + [0] * (num_choices - 1)
    assert [step.reused_tokens for step in steps] == [0] + [32] * (num_choices - 1)


def test_canvases_of_one_list_compute_what_they_share_once(sdar):
    prompts = [PROMPT, [*PROMPT[:24], *range(60, 68)], [7, *PROMPT[1:]], PROMPT]
    together = [canvas_of(sdar, prompt) for prompt in prompts]
    each = [generate(sdar, [prompt], GenerationParams(**FIELDS))[0] for prompt in prompts]
    cache_passes = finish(sdar, together, batch_size=2)
    assert [canvas.response for canvas in together] == [alone(sdar, prompt) for prompt in prompts]
    # The second computes the last block of its prompt; the fourth, though of a later batch, nothing of it.
    saved = [one.cache_passes - shared for one, shared in zip(each, cache_passes, strict=True)]
    assert saved == [0, 0, 0, 1]


def test_requests_that_arrive_together_compute_what_they_share_once_and_the_rest_together(sdar):
    sampler, _ = sampler_of(sdar)
    prompts = [[*PROMPT[:16], *range(first, first + 16)] for first in (60, 80, 100)]
    canvases = [canvas_of(sdar, prompt) for prompt in prompts]
    steps = sampler.step(canvases)
    assert [step.reused_tokens for step in steps] == [0, 16, 16]
    steps_of(sampler, *canvases)
    assert [canvas.response for canvas in canvases] == [alone(sdar, prompt) for prompt in prompts]


def test_guided_passes_have_blocks_of_their_own(sdar):
    sampler, _ = sampler_of(sdar)
    steps_of(sampler, canvas_of(sdar))
    guided = canvas_of(sdar, cfg_scale=1.0)
    # The pass over masks is new.
    assert steps_of(sampler, guided)[0].reused_tokens == 0
    again = canvas_of(sdar, cfg_scale=1.0)
    assert steps_of(sampler, again)[0].reused_tokens == 32
    assert guided.response == again.response == alone(sdar, cfg_scale=1.0)


def test_what_was_edited_later_never_enters(llada2):
    fields = {"steps_per_block": None, "confidence_threshold": 0.02, "editing_threshold": 0.0, "max_post_steps": 3}
    sampler, _ = sampler_of(llada2)
    first = canvas_of(llada2, **fields, gen_length=32)
    steps = steps_of(sampler, first)
    assert any(change.op == "edit" for step in steps for change in step.changes)
    prompt = PROMPT + first.response
    second = canvas_of(llada2, prompt, **fields)
    assert steps_of(sampler, second)[0].reused_tokens == 56
    assert second.response == alone(llada2, prompt, **fields)


def test_a_fork_and_a_canvas_that_gave_its_caches_up_go_on_from_the_pool(sdar):
    sampler, _ = sampler_of(sdar)
    whole, released = canvas_of(sdar), canvas_of(sdar)
    steps = steps_of(sampler, whole)
    for _ in range(6):
        sampler.step([released])
    released.caches = None
    (step,) = sampler.step([released])
    assert (step.queried_tokens, step.reused_tokens, step.cache_passes) == (40, 40, 0)
    steps_of(sampler, released)
    changes = [change for step in steps for change in (*step.changes, *step.overhang)]
    frame = frame_at(whole, changes, 6)
    fork = prepare_fork(whole, frame, whole.params.altered(), Vocabulary.of(sdar), reporting=Reporting())
    assert steps_of(sampler, fork)[0].cache_passes == 0
    assert released.response == fork.response == whole.response


def test_blocks_are_held_by_running_requests_only(sdar):
    sampler, pool = sampler_of(sdar)
    finished, dropped, failed = canvas_of(sdar), canvas_of(sdar), canvas_of(sdar)
    steps_of(sampler, finished)
    assert pool.num_bytes > pool.num_held_bytes == 0
    sampler.step([dropped])
    held = pool.num_held_bytes
    assert 0 < held < pool.num_bytes
    sampler.step([failed])
    # The same blocks.
    assert pool.num_held_bytes == held
    failed.caches = None
    assert pool.num_held_bytes == held
    del dropped
    assert pool.num_held_bytes == 0


def test_a_failed_step_leaves_blocks_that_the_next_try_uses(sdar, monkeypatch):
    sampler, pool = sampler_of(sdar)
    canvases = [canvas_of(sdar, seed=seed) for seed in range(2)]
    with monkeypatch.context() as patch, pytest.raises(NonFiniteLogitsError):
        patch.setattr(sdar, "head", lambda hidden: torch.full((len(hidden), 160), torch.nan))
        sampler.step(canvases)
    steps_of(sampler, *canvases)
    assert [canvas.response for canvas in canvases] == [alone(sdar)] * 2
    assert pool.num_held_bytes == 0


requests = st.fixed_dictionaries(
    {
        # A prompt is tokens that others begin with too, then some that one or two others have.
        "shared": st.integers(0, 40),
        "own": st.integers(1, 20),
        "kind": st.integers(0, 1),
        "first_step": st.integers(0, 4),
        "loses_caches": st.one_of(st.none(), st.integers(1, 4)),
        "fields": st.fixed_dictionaries(
            {"gen_length": st.integers(1, 16), "steps_per_block": st.just(2)},
            optional={
                "block_length": st.just(4),
                "cfg_scale": st.just(1.0),
                "temperature": st.just(0.7),
                "seed": st.integers(0, 2),
            },
        ),
    }
)


@settings(max_examples=cases(30), deadline=None)
@given(plans=st.lists(requests, min_size=2, max_size=5), blocks=st.sampled_from([0, 1, 3, 9, 10_000]))
def test_whatever_is_shared_or_evicted_the_tokens_are_those_without_a_pool(sdar, plans, blocks):
    sampler, pool = sampler_of(sdar, blocks * 4000)
    prompts = [[*range(20, 20 + plan["shared"]), *[100 + plan["kind"]] * plan["own"]] for plan in plans]
    canvases = [canvas_of(sdar, prompt, **plan["fields"]) for prompt, plan in zip(prompts, plans, strict=True)]
    step = 0
    while unfinished := [number for number, canvas in enumerate(canvases) if canvas.finish_reason is None]:
        for number in unfinished:
            if plans[number]["loses_caches"] == step - plans[number]["first_step"]:
                canvases[number].caches = None
        if running := [canvases[number] for number in unfinished if plans[number]["first_step"] <= step]:
            sampler.step(running)
        assert pool.num_bytes <= pool.max_bytes
        step += 1
    for prompt, plan, canvas in zip(prompts, plans, canvases, strict=True):
        assert canvas.response == alone(sdar, prompt, **plan["fields"])
    assert pool.num_held_bytes == 0


def test_threads_that_share_a_sampler_have_the_tokens_of_one(sdar):
    sampler, pool = sampler_of(sdar, 20_000)
    prompts = [[*PROMPT[: 8 * (number % 5)], number, *PROMPT] for number in range(10)]
    canvases = [canvas_of(sdar, prompt, gen_length=12) for prompt in prompts]
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda canvas: steps_of(sampler, canvas), canvases))
    assert [canvas.response for canvas in canvases] == [alone(sdar, prompt, gen_length=12) for prompt in prompts]
    assert 0 < pool.num_bytes <= pool.max_bytes and pool.num_held_bytes == 0


def test_without_a_pool_nothing_is_asked(sdar):
    steps = steps_of(Sampler(sdar), canvas_of(sdar))
    assert all(step == replace(step, queried_tokens=0, reused_tokens=0) for step in steps)
