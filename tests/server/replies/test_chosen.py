"""Answers that are one of several strings."""

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from tests.server.conftest import GatedSampler, gauge, serving, until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CITIES = ["The capital of France is Rome.", "The capital of France is Paris.", "The capital of France is Berlin."]


@pytest.fixture(scope="module")
def http(live_server):
    with httpx.Client(base_url=live_server, timeout=60) as client:
        yield client


def ask(http, **body):
    answer = http.post("/v1/chat/completions", json={"messages": QUESTION, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_likeliest_string_is_the_answer(http):
    answer = ask(http, structured_outputs={"choice": CITIES}, seed=0, return_token_ids=True)
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (CITIES[1], "stop")
    assert answer["usage"]["completion_tokens"] == len(choice["token_ids"])
    assert answer["usage"]["forward_passes"] == 3 * answer["generation_params"]["mc_num"]


def test_the_openai_client_passes_it_on(live_server):
    with openai.OpenAI(base_url=f"{live_server}/v1", api_key="unused") as client:
        answer = client.chat.completions.create(
            model="llada-demo", messages=QUESTION, extra_body={"structured_outputs": {"choice": CITIES}}
        )
    assert answer.choices[0].message.content == CITIES[1]


def test_a_stream_gives_the_same_answer(http):
    body = {"structured_outputs": {"choice": CITIES}, "stream": True, "stream_options": {"include_usage": True}}
    text = http.post("/v1/chat/completions", json={"messages": QUESTION, **body, "seed": 0}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    chunks = [json.loads(line) for line in lines[:-1]]
    *pieces, ending = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert "".join(piece["delta"]["content"] for piece in pieces) == CITIES[1]
    assert {piece["finish_reason"] for piece in pieces} == {None}
    assert ["generation_params" in chunk for chunk in chunks].count(True) == 1
    assert (ending["delta"], ending["finish_reason"]) == ({}, "stop")
    assert chunks[-1]["usage"] == ask(http, structured_outputs={"choice": CITIES}, seed=0)["usage"]


def test_completions_of_several_prompts_choose_for_each(http):
    prompts = [f"What is the capital of {country}?" for country in ("Italy", "Japan")]
    ids = [
        http.post("/tokenize", json={"messages": [{"role": "user", "content": prompt}]}).json()["tokens"]
        for prompt in prompts
    ]
    choices = ["The capital of Italy is Rome.", "The capital of Japan is Tokyo."]
    body = {"prompt": ids, "n": 2, "seed": 0, "structured_outputs": {"choice": choices}}
    answer = http.post("/v1/completions", json=body).json()
    assert [choice["text"] for choice in answer["choices"]] == [choices[0]] * 2 + [choices[1]] * 2


def test_a_high_temperature_draws_among_them(http):
    body = {"structured_outputs": {"choice": ["Paris", "Rome", "Berlin"]}, "n": 8, "temperature": 1000.0, "seed": 0}
    drawn = {choice["message"]["content"] for choice in ask(http, **body)["choices"]}
    assert drawn == {"Paris", "Rome", "Berlin"}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        (
            {"structured_outputs": {"json": {}}},
            "structured_outputs",
            "structured_outputs.json is {}; it must be absent",
        ),
        ({"structured_outputs": {"choice": []}}, "structured_outputs", "at least 1"),
        ({"structured_outputs": {"choice": [""]}}, "structured_outputs", "must not be empty"),
        ({"structured_outputs": {"choice": ["a"]}, "steps": 4}, "steps", "beside structured_outputs"),
        ({"structured_outputs": {"choice": ["a"]}, "logprobs": True}, "logprobs", "beside structured_outputs"),
        ({"structured_outputs": {"choice": [CITIES[0]]}, "max_tokens": 2}, "max_tokens", "must fit"),
        ({"structured_outputs": {"choice": ["a"]}, "model": "other"}, "model", "llada-demo"),
        ({"structured_outputs": {"choice": ["a"]}, "temperature": 1e300}, "temperature", "1000000"),
        ({"structured_outputs": {"choice": ["a"]}, "max_completion_tokens": 9999}, "max_completion_tokens", "512"),
        ({"structured_outputs": {"choice": ["a " * 600]}}, "structured_outputs", "max_model_len (512)"),
    ],
    ids=str,
)
def test_invalid_choices_are_refused_by_name(http, fields, param, message):
    answer = http.post("/v1/chat/completions", json={"messages": QUESTION, **fields})
    error = answer.json()["error"]
    assert answer.status_code in (400, 404)
    assert error["param"] == param, error
    assert message in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_refuses_a_choice_before_its_stream_begins(demo, demo_tokenizer, stream):
    sampler = GatedSampler(demo)
    with serving(demo, demo_tokenizer, sampler=sampler, max_batch_size=1, max_queue=0) as url:
        sampler.gate.clear()
        with ThreadPoolExecutor() as pool:
            first = pool.submit(httpx.post, f"{url}/v1/completions", json={"prompt": [1], "max_tokens": 2}, timeout=30)
            until(lambda: gauge(url, "llada_requests_running") == 1)
            body = {"messages": QUESTION, "structured_outputs": {"choice": CITIES}, "stream": stream}
            refused = httpx.post(f"{url}/v1/chat/completions", json=body)
            sampler.gate.set()
            assert first.result().status_code == 200
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")


def test_neutral_settings_may_stand_beside_a_choice(http):
    more = {
        "top_p": 1,
        "logprobs": False,
        "stop": [],
        "steps": None,
        "structured_outputs": {"choice": ["a"], "json": None},
    }
    assert ask(http, **more)["choices"][0]["message"]["content"] == "a"


def test_a_choice_is_counted_as_running_and_as_finished(demo, demo_tokenizer):
    with serving(demo, demo_tokenizer) as url, ThreadPoolExecutor() as pool:
        body = {"messages": QUESTION, "structured_outputs": {"choice": CITIES}, "n": 8}
        answer = pool.submit(httpx.post, f"{url}/v1/chat/completions", json=body, timeout=60)
        until(lambda: gauge(url, "llada_requests_running") == 1)
        assert answer.result().status_code == 200
        until(lambda: gauge(url, "llada_requests_running") == 0)
        assert 'finish_reason="stop"' in httpx.get(f"{url}/metrics").text
