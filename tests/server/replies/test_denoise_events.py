"""The events of `/v1/denoise`."""

import math

import pytest

from llada_core.sampling.events import Change, DenoisingStep
from llada_core.text.special_tokens import SpecialTokens
from server.engine.mailbox import TimedStep
from server.replies.denoise_events import special_token_names, step_object
from server.replies.usage import Usage
from tests.server.conftest import events_of


def test_denoise_events_replay_to_the_final_canvas(tiny_client):
    body = {"prompt": [1, 2, 3], "max_tokens": 20, "steps": 7, "block_length": 8, "ignore_eos": True}
    response = tiny_client.post("/v1/denoise", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response)
    names = [name for name, _ in events]
    assert names == ["start"] + ["step"] * 7 + ["done"]
    start, *steps, done = (data for _, data in events)
    assert (start["prompt_tokens"], start["gen_length"], start["block_length"], start["steps"]) == (3, 20, 8, 7)
    canvas = start["token_ids"]
    assert canvas == [start["mask_token_id"]] * 20
    for number, step in enumerate(steps):
        assert step["step"] == number
        for change in step["changes"]:
            assert change["op"] == "commit" and change["step"] == number
            assert 0 <= change["confidence"] <= 1
            canvas[change["position"]] = change["token_id"]
        assert step["masked"] == canvas.count(start["mask_token_id"])
    assert canvas == done["token_ids"]
    assert done["usage"] == Usage(3, 20, denoising_steps=7, forward_passes=7).as_completion()


def test_events_have_increasing_ids(tiny_client):
    text = tiny_client.post("/v1/denoise", json={"prompt": [1], "max_tokens": 4}).text
    ids = [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(len(ids)))


def test_predictions_are_given_at_every_masked_position(tiny_client):
    body = {"prompt": [1], "max_tokens": 6, "include_predictions": True, "ignore_eos": True}
    for name, data in events_of(tiny_client.post("/v1/denoise", json=body)):
        if name == "step":
            assert len(data["predictions"]) == data["masked"]


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("canvas", [None, [[5, 6], {"mask": 5}]])
def test_every_change_names_the_most_probable_tokens_of_its_step(tiny_client, count, canvas):
    gap = {"canvas": canvas} if canvas else {"prompt": [1], "max_tokens": 6, "ignore_eos": True}
    plain = events_of(tiny_client.post("/v1/denoise", json=gap))
    events = events_of(tiny_client.post("/v1/denoise", json={**gap, "top_logprobs": count}))
    changes = [change for name, data in events if name == "step" for change in data["changes"]]
    assert len(changes) == 5 if canvas else 6
    for change in changes:
        top = change["top_logprobs"]
        assert top[0]["token_id"] == change["token_id"] and len(top) == count
        logprobs = [one["logprob"] for one in top]
        assert logprobs == sorted(logprobs, reverse=True)
        assert math.exp(logprobs[0]) == pytest.approx(change["confidence"])
        assert {"token_id", "text", "logprob"} == set(top[0])
    assert events[-1][1]["token_ids"] == plain[-1][1]["token_ids"]
    assert not any("top_logprobs" in change for name, data in plain if name == "step" for change in data["changes"])


@pytest.mark.parametrize("count", [-1, 21, 1.5, "3", True])
def test_a_number_of_alternatives_out_of_range_is_refused_by_name(tiny_client, count):
    answer = tiny_client.post("/v1/denoise", json={"prompt": [1], "top_logprobs": count})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "top_logprobs"


def test_under_a_parallel_rule_the_number_of_steps_is_open(tiny_client):
    body = {"prompt": [1, 2], "max_tokens": 8, "ignore_eos": True, "confidence_threshold": 0.9}
    start, *steps, done = events_of(tiny_client.post("/v1/denoise", json=body))
    assert start[1]["steps"] is None
    assert done[1]["usage"]["denoising_steps"] == len(steps)


def test_start_names_the_special_tokens_as_published_without_a_tokenizer(tiny, tiny_client):
    start = events_of(tiny_client.post("/v1/denoise", json={"prompt": [1], "max_tokens": 2}))[0][1]
    special = tiny.special_tokens
    assert start["special_tokens"] == {
        str(special.mask_id): "<|mdm_mask|>",
        str(special.eos_id): "<|endoftext|>",
        str(special.eot_id): "<|eot_id|>",
    }


def test_start_names_the_special_tokens_as_the_tokenizer_does(demo, demo_tokenizer):
    names = special_token_names(demo.special_tokens, demo_tokenizer)
    assert {demo_tokenizer.token_to_id(name): name for name in names.values()} == {
        int(token_id): name for token_id, name in names.items()
    }
    assert len(names) == 3


def test_an_id_that_the_tokenizer_lacks_has_its_published_name(demo_tokenizer):
    special = SpecialTokens(mask_id=100_000, eos_id=1, eot_id=None)
    assert special_token_names(special, demo_tokenizer) == {
        "100000": "<|mdm_mask|>",
        "1": demo_tokenizer.token_text(1),
    }


def test_a_change_shows_its_token_alone_and_nothing_for_a_special_one(demo_tokenizer):
    end, word = demo_tokenizer.token_to_id("<|endoftext|>"), demo_tokenizer.encode_plain(" fox")[0]
    changes = tuple(Change("commit", 0, position, token_id, 0.5) for position, token_id in enumerate((word, end)))
    step = DenoisingStep(0, 0, changes, masked=0, final_length=1, text_length=1, finish_reason="stop")
    texts = [change["text"] for change in step_object(TimedStep(step, 1.0), demo_tokenizer)["changes"]]
    assert texts == [demo_tokenizer.decode([word]), ""]
    assert [change["text"] for change in step_object(TimedStep(step, 1.0), None)["changes"]] == ["", ""]
