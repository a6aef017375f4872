import random

import pytest
import torch

from llada_core import GenerationParams, denoise, generate
from llada_core.errors import NonFiniteLogitsError
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import Reporting
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response
from llada_core.sampling.sampler import Sampler

SETTINGS = [
    {"gen_length": 16, "steps": 8, "block_length": 8},
    {"gen_length": 24, "steps": 24, "block_length": 8, "temperature": 0.8, "seed": 3},
    {"gen_length": 9, "steps": 4, "block_length": 5, "remasking": "random", "seed": 4},
    {"gen_length": 20, "steps": 10, "cfg_scale": 1.5, "remasking": "margin"},
    {"gen_length": 12, "steps": 12, "method": "semi_autoregressive_origin", "block_length": 4, "temperature": 1.2},
    {"gen_length": 16, "steps": 5, "method": "fixed_length", "remasking": "entropy", "cfg_scale": 0.5},
    {"gen_length": 10, "temperature": 1.0, "top_k": 20, "top_p": 0.9, "seed": 2**63},
    {"gen_length": 16, "logits_eos_inf": True, "confidence_eos_eot_inf": True, "temperature": 0.3},
    {"gen_length": 16, "block_length": 8, "confidence_threshold": 0.03, "cache": "dual", "cfg_scale": 1.0},
    {"gen_length": 12, "block_length": 4, "cache": "prefix", "temperature": 0.7, "cache_refresh_interval": 2},
    {"gen_length": 20, "entropy_bound": 4.0, "remasking": "margin"},
    {"gen_length": 14, "confidence_factor": 1.4, "cache": "dual", "method": "semi_autoregressive_origin"},
    {"gen_length": 20, "block_length": 6, "cache": "delayed", "suffix_window": 5, "temperature": 0.6},
    {"gen_length": 20, "block_length": 4, "cache": "delayed", "entropy_threshold": 4.0, "active_blocks": 3},
]


def mixed_requests():
    generator = random.Random(0)
    for number, setting in enumerate(SETTINGS * 2):
        prompt = [generator.randrange(300) for _ in range(1 + 5 * number % 23)]
        yield prompt, GenerationParams(**setting, ignore_eos=number % 2 == 0)


def canvas_of(model, prompt, params):
    return prepare_response(prompt, params, Vocabulary.of(model))


@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
def test_mixed_batch_equals_one_by_one(golden_models, model_name):
    model = golden_models[model_name]
    requests = list(mixed_requests())
    together = generate(model, [prompt for prompt, _ in requests], [params for _, params in requests])
    alone = [generate(model, [prompt], params)[0] for prompt, params in requests]
    assert together == alone


def test_a_request_that_joins_late_gets_the_tokens_it_gets_alone(tiny):
    requests = list(mixed_requests())
    canvases = [canvas_of(tiny, *request) for request in requests]
    running: list[Canvas] = []
    waiting = list(canvases)
    sampler = Sampler(tiny)
    while waiting or running:
        running += [waiting.pop()] if waiting else []
        sampler.step(running)
        running = [canvas for canvas in running if canvas.finish_reason is None]
    alone = [generate(tiny, [prompt], params)[0].token_ids for prompt, params in requests]
    assert [canvas.text_ids for canvas in canvases] == alone


def test_the_seed_decides_all_noise(tiny):
    params = [GenerationParams(gen_length=16, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = generate(tiny, [[1, 2, 3]] * 3, params)
    assert first == again
    assert first.token_ids != other.token_ids


def test_noise_does_not_depend_on_the_step_at_which_a_run_is_taken_up(tiny):
    params = GenerationParams(gen_length=12, temperature=1.0, seed=9)
    whole = canvas_of(tiny, [4, 5], params)
    sampler = Sampler(tiny)
    for _ in range(6):
        sampler.step([whole])
    continued = canvas_of(tiny, [4, 5], params)
    continued.tokens, continued.step = whole.tokens.copy(), whole.step
    for canvas in (whole, continued):
        while canvas.finish_reason is None:
            sampler.step([canvas])
    assert continued.response == whole.response


def test_replayed_events_give_the_final_canvas(tiny):
    for prompt, params in mixed_requests():
        canvas = canvas_of(tiny, prompt, params)
        replayed = canvas.response
        sampler = Sampler(tiny)
        while canvas.finish_reason is None:
            event = sampler.step([canvas])[0]
            for change in event.changes:
                replayed[change.position] = change.token_id
        assert replayed == canvas.response
        assert event.finish_reason == canvas.finish_reason


def test_an_early_stop_saves_steps_and_keeps_the_text(tiny):
    prompt = [1, 2, 3]
    full = generate(tiny, [prompt], GenerationParams(gen_length=24, block_length=8, ignore_eos=True))[0]
    end = full.token_ids[3]  # stop where this token first stands
    stopped = generate(
        tiny, [prompt], GenerationParams(gen_length=24, block_length=8, stop_token_ids=frozenset({end}))
    )[0]
    assert stopped.finish_reason == "stop"
    assert stopped.token_ids == full.token_ids[: full.token_ids.index(end)]
    assert stopped.denoising_steps < full.denoising_steps


def test_predictions_cover_every_mask_and_change_nothing(tiny):
    params = GenerationParams(gen_length=8, block_length=4)
    plain = [step.changes for step in denoise(tiny, [1, 2], params)]
    canvas = prepare_response([1, 2], params, Vocabulary.of(tiny), reporting=Reporting(include_predictions=True))
    sampler = Sampler(tiny)
    for changes in plain:
        event = sampler.step([canvas])[0]
        assert [change.token_id for change in event.changes] == [change.token_id for change in changes]
        assert len(event.predictions) == event.masked


def test_infilling_leaves_the_segments_and_fills_every_gap(tiny):
    canvas = prepare_infilling(
        [[1, 2], Gap(5), [3], Gap(2)], GenerationParams(temperature=2.0, seed=1), Vocabulary.of(tiny)
    )
    sampler = Sampler(tiny)
    while canvas.finish_reason is None:
        sampler.step([canvas])
    response = canvas.response
    assert (response[:2], response[7]) == ([1, 2], 3)
    assert not {317, 318, 319} & set(response)
    assert canvas.text_ids == response


def test_guidance_without_a_padding_mask_works_and_counts_two_passes(tiny):
    result = generate(tiny, [[1, 2]], GenerationParams(gen_length=4, cfg_scale=1.0))[0]
    assert (result.denoising_steps, result.forward_passes) == (4, 8)


def test_no_logits_are_computed_outside_the_masked_rows_of_the_active_block(tiny, monkeypatch):
    shapes = []
    head = type(tiny).head
    monkeypatch.setattr(
        type(tiny), "head", lambda self, hidden_RE: shapes.append(hidden_RE.shape) or head(self, hidden_RE)
    )
    generate(tiny, [[1] * 50, [2] * 9], GenerationParams(gen_length=16, block_length=4, ignore_eos=True))
    assert [rows for rows, _ in shapes] == [2 * (4 - step % 4) for step in range(16)]


class LargestLogits(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the most rows of any tensor as wide as the vocabulary, over every operation that is run."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == 320:
                self.largest = max(self.largest, tensor.numel() // 320)
        return result


@pytest.mark.parametrize(
    "setting",
    [{}, {"temperature": 1.0, "top_p": 0.9, "top_k": 50}, {"cfg_scale": 1.0, "remasking": "entropy"}],
    ids=str,
)
def test_no_tensor_of_batch_by_length_by_vocabulary_exists_during_generation(tiny, setting):
    params = GenerationParams(gen_length=64, block_length=8, ignore_eos=True, **setting)
    with LargestLogits() as seen:
        generate(tiny, [[1] * 100, [2] * 60], params)
    # At most the block's 8 rows of two sequences (doubled under guidance); the canvases hold 288 positions.
    assert 0 < seen.largest <= 8 * 2 * (2 if params.cfg_scale else 1)


@pytest.mark.parametrize("setting", [{}, {"cfg_scale": 1.0}, {"temperature": 0.7}], ids=str)
def test_logits_of_long_blocks_are_computed_in_parts_without_changing_a_token(tiny, monkeypatch, setting):
    params = GenerationParams(gen_length=40, steps=10, method="fixed_length", ignore_eos=True, **setting)
    prompts = [[1, 2], [3] * 9, [4]]
    whole = generate(tiny, prompts, params)
    monkeypatch.setattr("llada_core.sampling.sampler.MAX_HEAD_ROWS", 16)
    with LargestLogits() as seen:
        assert generate(tiny, prompts, params) == whole
    assert seen.largest <= 16


def test_logits_that_are_not_finite_raise_and_leave_the_canvases_alone(tiny, monkeypatch):
    monkeypatch.setattr(type(tiny), "head", lambda self, hidden_RE: torch.full((len(hidden_RE), 320), torch.nan))
    canvas = canvas_of(tiny, [1], GenerationParams(gen_length=4))
    with pytest.raises(NonFiniteLogitsError):
        Sampler(tiny).step([canvas])
    assert (canvas.step, canvas.num_masked) == (0, 4)


def test_text_and_chat_prompts_need_a_tokenizer(tiny):
    with pytest.raises(ValueError, match="without a tokenizer"):
        generate(tiny, ["text"], GenerationParams())
    with pytest.raises(ValueError, match="one per prompt"):
        generate(tiny, [[1], [2]], [GenerationParams()])
