"""Canvases with several gaps and constraints, through `/v1/denoise`."""

import httpx
import pytest

from llada_core import GenerationParams
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling
from llada_core.sampling.sampler import Sampler
from server.replies.usage import Usage
from tests.server.conftest import events_of

SEGMENTS = [[5, 6, 7], {"mask": 4}, [8], {"mask": 6}]


def replay(events):
    """The events of a stream, after checking that the changes of all steps give the last canvas."""
    start, *steps, done = (data for _, data in events)
    canvas = list(start["token_ids"])
    for step in steps:
        for change in step["changes"]:
            assert canvas[change["position"]] == start["mask_token_id"]
            canvas[change["position"]] = change["token_id"]
    assert canvas == done["token_ids"]
    return start, steps, done


def test_gaps_are_filled_and_segments_stay(tiny, tiny_client):
    events = events_of(tiny_client.post("/v1/denoise", json={"canvas": SEGMENTS, "block_length": 8}))
    start, steps, done = replay(events)
    assert (start["prompt_tokens"], start["gen_length"], start["steps"]) == (4, 14, 10)
    assert start["token_ids"] == [5, 6, 7, *[319] * 4, 8, *[319] * 6]
    assert (done["token_ids"][:3], done["token_ids"][7]) == ([5, 6, 7], 8)
    assert 319 not in done["token_ids"]
    assert not set(done["token_ids"]) & tiny.special_tokens.end_ids
    assert len(steps) == 10
    assert done["usage"] == Usage(4, 10, denoising_steps=10, forward_passes=10).as_completion()
    canvas = prepare_infilling(
        [Gap(part["mask"]) if isinstance(part, dict) else part for part in SEGMENTS],
        GenerationParams(block_length=8),
        Vocabulary.of(tiny),
    )
    while canvas.finish_reason is None:
        Sampler(tiny).step([canvas])
    assert done["token_ids"] == canvas.response


def test_a_canvas_takes_the_requested_number_of_steps(tiny_client):
    body = {"canvas": SEGMENTS, "block_length": 8, "steps": 3}
    start, steps, _ = replay(events_of(tiny_client.post("/v1/denoise", json=body)))
    assert start["steps"] == len(steps) == 3


def test_a_text_canvas_reads_well_around_its_gap(live_server, demo_tokenizer):
    before, after = "Once upon a time there was a big ", " named Tom."
    body = {"canvas": [before, {"mask": 1}, after]}
    events = events_of(httpx.post(f"{live_server}/v1/denoise", json=body, timeout=60))
    _, _, done = replay(events)
    assert done["text"].startswith(before)
    assert done["text"].endswith(after)
    # A mask token written as text is ordinary text.
    plain = {"canvas": ["<|mdm_mask|>", {"mask": 1}]}
    start, _, _ = replay(events_of(httpx.post(f"{live_server}/v1/denoise", json=plain, timeout=60)))
    assert start["token_ids"][:-1] == demo_tokenizer.encode_plain("<|mdm_mask|>")


def test_constraints_stand_where_they_were_put(tiny_client):
    body = {"prompt": [1, 2], "max_tokens": 10, "constraints": {"0": [40], "5": [41, 42]}, "ignore_eos": True}
    start, steps, done = replay(events_of(tiny_client.post("/v1/denoise", json=body)))
    assert start["token_ids"] == [40, *[319] * 4, 41, 42, *[319] * 3]
    assert (done["token_ids"][0], done["token_ids"][5:7]) == (40, [41, 42])
    assert (done["usage"]["prompt_tokens"], done["usage"]["completion_tokens"]) == (2, 10)
    assert len(steps) == 7


def test_constraints_are_masked_in_the_unconditional_pass(tiny_client):
    body = {"prompt": [1], "max_tokens": 6, "constraints": {"2": [9]}, "cfg_scale": 4.0, "ignore_eos": True}
    _, _, guided = replay(events_of(tiny_client.post("/v1/denoise", json=body)))
    assert guided["usage"]["forward_passes"] == 2 * guided["usage"]["denoising_steps"]


def test_text_constraints_are_written_as_text(live_server, demo_tokenizer):
    body = {"prompt": "Once upon a time", "max_tokens": 16, "constraints": {"3": " fox"}}
    start, _, done = replay(events_of(httpx.post(f"{live_server}/v1/denoise", json=body, timeout=60)))
    ids = demo_tokenizer.encode_plain(" fox")
    assert start["token_ids"][3 : 3 + len(ids)] == done["token_ids"][3 : 3 + len(ids)] == ids


def test_a_response_fixed_by_constraints_needs_no_step(tiny_client):
    body = {"prompt": [1], "max_tokens": 2, "constraints": {"0": [40, 41]}}
    _, steps, done = replay(events_of(tiny_client.post("/v1/denoise", json=body)))
    assert (steps, done["token_ids"], done["usage"]["denoising_steps"]) == ([], [40, 41], 0)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"canvas": [[1, 2]]}, "canvas", "no gap"),
        ({"canvas": [[1], {"mask": 2}], "stop_token_ids": [1]}, "stop_token_ids", "absent on an infilling canvas"),
        ({"canvas": [[1], {"mask": 2}], "method": "semi_autoregressive_origin"}, "method", "infilling canvas"),
        ({"canvas": [[1], {"mask": 2}], "add_generation_prompt": False}, "add_generation_prompt", "without messages"),
        ({"canvas": []}, "canvas", "at least 1 item"),
        ({"canvas": [{"mask": 0}]}, "canvas", "greater than or equal to 1"),
        ({"canvas": [{"mask": 2, "n": 1}]}, "canvas", "n is not a field"),
        ({"canvas": [{"mask": 500}]}, "canvas", "at most max_model_len (256)"),
        ({"canvas": [[319], {"mask": 1}]}, "canvas", "mask id"),
        ({"canvas": [[400], {"mask": 1}]}, "canvas", "from 0 to 319"),
        ({"canvas": ["text", {"mask": 1}]}, "canvas", "no tokenizer"),
        ({"canvas": [{"mask": 1}], "max_tokens": 4}, "max_tokens", "beside canvas"),
        ({"canvas": [{"mask": 1}], "constraints": {"0": [1]}}, "constraints", "beside canvas"),
        ({"canvas": [{"mask": 1}], "prompt": [1]}, "canvas", "exactly one"),
        ({"canvas": [{"mask": 40}], "steps": 1, "block_length": 8}, "steps", "number of blocks"),
        ({"prompt": [1], "max_tokens": 4, "constraints": {"4": [1]}}, "constraints", "within gen_length (4)"),
        ({"prompt": [1], "max_tokens": 4, "constraints": {"x": [1]}}, "constraints", "'x'"),
        ({"prompt": [1], "max_tokens": 4, "constraints": {"-1": [1]}}, "constraints", "'-1'"),
        ({"prompt": [1], "max_tokens": 4, "constraints": {"0": [319]}}, "constraints", "mask id"),
        ({"prompt": [1], "max_tokens": 4, "constraints": {"0": []}}, "constraints", "at least 1"),
        ({"prompt": [1], "max_tokens": 4, "constraints": {"0": [1, 2], "1": [3]}}, "constraints", "overlaps"),
    ],
    ids=str,
)
def test_invalid_canvases_are_refused_by_name(tiny_client, body, param, message):
    answer = tiny_client.post("/v1/denoise", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]
