"""Several choices and several prompts in one request."""

import json
import time

import httpx
import pytest

from tests.server.conftest import GatedSampler, gauge, serving, until

SAMPLED = {"max_tokens": 14, "temperature": 1.2, "ignore_eos": True, "return_token_ids": True}


def ask(client, **body):
    answer = client.post("/v1/completions", json={**SAMPLED, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunks_of(client, **body):
    text = client.post("/v1/completions", json={**SAMPLED, **body, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_choice_i_is_a_single_call_with_the_seed_plus_i(tiny_client):
    answer = ask(tiny_client, prompt=[1, 2], n=4, seed=7)
    singles = [ask(tiny_client, prompt=[1, 2], seed=7 + i) for i in range(4)]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    ids = [choice["token_ids"] for choice in answer["choices"]]
    assert ids == [single["choices"][0]["token_ids"] for single in singles]
    assert len({tuple(choice_ids) for choice_ids in ids}) == 4
    assert answer["generation_params"]["seed"] == 7


def test_each_prompt_of_a_list_starts_again_at_the_seed(tiny_client):
    prompts = [[1, 2], [3], [1, 2]]
    answer = ask(tiny_client, prompt=prompts, n=2, seed=5)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert [choice["prompt_token_ids"] for choice in answer["choices"]] == [prompts[i // 2] for i in range(6)]
    ids = [choice["token_ids"] for choice in answer["choices"]]
    assert ids[:2] == ids[4:]
    assert ids[2] == ask(tiny_client, prompt=[3], seed=5)["choices"][0]["token_ids"]


def test_usage_counts_a_prompt_once_and_every_choice(tiny_client):
    usage = ask(tiny_client, prompt=[[1, 2], [3]], n=3)["usage"]
    assert usage == {
        "prompt_tokens": 3,
        "completion_tokens": 6 * 14,
        "total_tokens": 3 + 6 * 14,
        "denoising_steps": 6 * 14,
        "forward_passes": 6 * 14,
        "cache_passes": 0,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_a_stream_carries_the_settings_once_however_many_choices(tiny_client):
    chunks = chunks_of(tiny_client, prompt=[[1, 2], [3]], n=3, seed=7)
    with_settings = [chunk for chunk in chunks if "generation_params" in chunk]
    assert with_settings == [chunks[-1]] and chunks[-1]["choices"][0]["finish_reason"]
    assert chunks[-1]["generation_params"]["seed"] == 7


def test_the_settings_are_checked_once_for_all_choices(tiny, monkeypatch):
    checked = []
    require_token_ids = type(tiny.shape).require_token_ids
    monkeypatch.setattr(
        type(tiny.shape),
        "require_token_ids",
        lambda self, ids, field: checked.append(field) or require_token_ids(self, ids, field),
    )
    with serving(tiny) as url:
        stop = {"stop_token_ids": list(range(300)), "logit_bias": {"5": 1}}
        body = {"prompt": [1], "n": 64, "max_tokens": 1, **stop}
        assert len(httpx.post(f"{url}/v1/completions", json=body, timeout=30).json()["choices"]) == 64
    # The prompt by the server too, whose error says how its users write gaps.
    assert sorted(checked) == ["logit_bias", "prompt", "prompt", "stop_token_ids", "suffix"]


def test_streamed_choices_are_those_of_the_plain_answer(tiny_client):
    body = {"prompt": [[1, 2], [3]], "n": 2, "seed": 3, "stream_options": {"include_usage": True}}
    plain = ask(tiny_client, **{name: body[name] for name in ("prompt", "n", "seed")})
    *chunks, last = chunks_of(tiny_client, **body)
    assert (last["choices"], last["usage"]) == ([], plain["usage"])
    assert len({chunk["id"] for chunk in chunks}) == 1
    ends = {
        choice["index"]: choice
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"] is not None
    }
    streamed = [[choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == i] for i in range(4)]
    assert set(ends) == set(range(4))
    for chunk_choices, choice in zip(streamed, plain["choices"], strict=True):
        assert [token_id for part in chunk_choices for token_id in part["token_ids"]] == choice["token_ids"]
        # Only in its first chunk.
        assert ["prompt_token_ids" in part for part in chunk_choices] == [True] + [False] * (len(chunk_choices) - 1)
        assert chunk_choices[0]["prompt_token_ids"] == choice["prompt_token_ids"]


def test_text_prompts_stream_to_their_own_texts(live_server):
    body = {"prompt": ["Once upon a time", "The capital of France is"], "n": 2, "max_tokens": 12}
    with httpx.Client(base_url=live_server, timeout=60) as client:
        plain = client.post("/v1/completions", json=body).json()
        text = client.post("/v1/completions", json={**body, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    streamed = [""] * 4
    for line in lines[:-1]:
        for choice in json.loads(line)["choices"]:
            streamed[choice["index"]] += choice["text"]
    assert streamed == [choice["text"] for choice in plain["choices"]]


def test_choices_are_admitted_whole_or_not_at_all(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler, max_batch_size=1, max_queue=2) as url:
        sampler.gate.clear()
        refused = httpx.post(f"{url}/v1/completions", json={"prompt": [1], "n": 4, "max_tokens": 2})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert gauge(url, "llada_requests_waiting") == gauge(url, "llada_requests_running") == 0
        sampler.gate.set()
        accepted = httpx.post(f"{url}/v1/completions", json={"prompt": [1], "n": 3, "max_tokens": 2}, timeout=30)
        assert len(accepted.json()["choices"]) == 3


def test_more_choices_than_ever_fit_are_refused_before_any_work(tiny, monkeypatch):
    with serving(tiny) as url:
        monkeypatch.setattr("server.canvases.prepare_responses", lambda *args, **kwargs: 1 / 0)
        for more in ({}, {"structured_outputs": {"choice": ["a"] * 64}}):
            answer = httpx.post(f"{url}/v1/completions", json={"prompt": [[1]] * 3000, "n": 128, **more}, timeout=5)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_all_its_choices_along(tiny, stream):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as url:
        sampler.gate.clear()
        body = {"prompt": [1], "n": 3, "max_tokens": 30, "ignore_eos": True, "stream": stream}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/completions", json=body, timeout=0.5)
        # While the first step is still running: all leave before the next one.
        until(lambda: gauge(url, "llada_requests_running") + gauge(url, "llada_requests_waiting") == 0)
        sampler.gate.set()
        until(lambda: len(sampler.steps) == 1)
        time.sleep(0.2)
        assert len(sampler.steps) == 1


def test_a_bias_moves_the_choice_of_tokens(tiny_client):
    body = {"prompt": [1, 2], "temperature": 0}
    free = ask(tiny_client, **body)["choices"][0]["token_ids"]
    loved = ask(tiny_client, **body, logit_bias={"77": 100})["choices"][0]["token_ids"]
    assert loved == [77] * 14 != free
    hated = ask(tiny_client, **body, logit_bias={str(token): -100 for token in set(free)})["choices"][0]["token_ids"]
    assert not set(hated) & set(free)
