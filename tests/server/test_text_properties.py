"""The same request plain, streamed and as denoising states gives the same text, finish reason and correct usage."""

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llada_core.text.tokenizer import Message
from tests.random_cases import cases
from tests.server.conftest import events_of

QUESTIONS = ("What is the capital of France?", "What is 12 + 30?", "Tell me a story about a fox.", "Hello!", "▒ä\n")
EOS, EOT = 1, 5


requests = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, 40), "seed": st.integers(0, 9), "temperature": st.sampled_from([0, 0, 0.5, 1.5])},
    optional={
        "steps": st.integers(1, 12),
        "block_length": st.integers(1, 40),
        "method": st.sampled_from(["semi_autoregressive_padding", "semi_autoregressive_origin"]),
        "schedule": st.sampled_from(["uniform", "timestep"]),
        "remasking": st.sampled_from(["low_confidence", "random", "margin", "entropy", "origin"]),
        "remasking_temperature": st.sampled_from([0, 0.5]),
        "confidence_threshold": st.sampled_from([0.3, 0.9]),
        "entropy_bound": st.sampled_from([0.1, 5.0]),
        "cache": st.sampled_from(["prefix", "dual"]),
        "cfg_scale": st.sampled_from([0.5, 2.0]),
        "logits_eos_inf": st.booleans(),
        "ignore_eos": st.booleans(),
        "stop": st.sampled_from(["a", ["is", " "], "the", ".", "ö", "e named", "= 4"]),
        "stop_token_ids": st.sampled_from([[19], [262, 300]]),
        # Bytes of characters, some of them never completed.
        "logit_bias": st.sampled_from([{"200": 100, "201": 99, "130": 100}, {"19": 30}]),
    },
)


@settings(max_examples=cases(40), deadline=None)
@given(question=st.sampled_from(QUESTIONS), request=requests)
def test_text_end_and_usage_agree_and_are_true(http, demo_tokenizer, question, request):
    prompt = demo_tokenizer.encode_chat([Message("user", question)])
    plain = http.post("/v1/completions", json={"prompt": prompt, **request, "return_token_ids": True})
    assume(plain.status_code == 200)  # settings may exclude each other
    (choice,), usage = plain.json()["choices"], plain.json()["usage"]

    body = {"prompt": prompt, **request, "stream": True, "stream_options": {"include_usage": True}}
    lines = http.post("/v1/completions", json=body).text.splitlines()
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == choice["text"]
    assert (chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]) == (choice["finish_reason"], usage)

    events = events_of(http.post("/v1/denoise", json={"prompt": prompt, **request}))
    canvas, done = list(events[0][1]["token_ids"]), events[-1][1]
    for _, step in events[1:-1]:
        for change in step["changes"]:
            canvas[change["position"]] = change["token_id"]
    assert canvas == done["token_ids"]
    assert (done["text"], done["finish_reason"], done["usage"]) == (choice["text"], choice["finish_reason"], usage)

    ids = choice["token_ids"]
    assert canvas[: len(ids)] == ids
    assert usage["completion_tokens"] == len(ids)
    assert usage["prompt_tokens"] == len(prompt)
    assert usage["denoising_steps"] == len(events) - 2
    assert usage["forward_passes"] == usage["denoising_steps"] * (2 if request.get("cfg_scale") else 1)
    ends = {*request.get("stop_token_ids", ())} | (set() if request.get("ignore_eos") else {EOS, EOT})
    stops = request.get("stop", [])
    stops = [stops] if isinstance(stops, str) else stops
    assert not ends & set(ids)
    assert not any(stop in choice["text"] for stop in stops)
    if choice["finish_reason"] == "length":
        assert len(ids) == request["max_tokens"]
    elif canvas[len(ids)] not in ends:
        assert any(demo_tokenizer.decode(canvas).startswith(choice["text"] + stop) for stop in stops)


@pytest.mark.parametrize(
    ("fields", "finish_reason", "completion_tokens"),
    [
        ({"logit_bias": {"1": 100}}, "stop", 0),
        ({"logit_bias": {"5": 100}}, "stop", 0),
        ({"logit_bias": {"1": 100}, "ignore_eos": True}, "length", 8),
        ({"logit_bias": {"40": 100}}, "length", 8),
        ({"logit_bias": {"40": 100}, "stop_token_ids": [40]}, "stop", 0),
        ({"logit_bias": {"40": 100}, "stop_token_ids": [40], "ignore_eos": True}, "stop", 0),
    ],
    ids=str,
)
def test_every_end_has_its_reason_and_counts_only_the_text(http, fields, finish_reason, completion_tokens):
    answer = http.post("/v1/completions", json={"prompt": [40], "max_tokens": 8, **fields}).json()
    assert answer["choices"][0]["finish_reason"] == finish_reason
    assert answer["usage"]["completion_tokens"] == completion_tokens
    assert answer["usage"]["total_tokens"] == 1 + completion_tokens


def test_a_stop_string_counts_the_tokens_before_it(http, demo_tokenizer):
    letter = demo_tokenizer.encode_plain("a")[0]
    body = {"prompt": [40], "max_tokens": 8, "logit_bias": {str(letter): 100}, "stop": "aaa", "return_token_ids": True}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert (answer["choices"][0]["text"], answer["choices"][0]["token_ids"]) == ("", [])
    assert answer["usage"]["completion_tokens"] == 0
