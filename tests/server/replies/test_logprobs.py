"""Log-probabilities compared with a recomputation from the replayed canvas."""

import json
import math

import numpy as np
import openai
import pytest
import torch

from llada_core.model.packed import PackedTokens
from server.replies.logprobs import TokenNames
from tests.server.conftest import events_of

MASK = 319
PROMPT = [1, 2, 3]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 5, "block_length": 6},
        {"temperature": 1.1, "seed": 4, "remasking": "random"},
        {"confidence_threshold": 0.03, "logit_bias": {"9": 3.0}},
    ],
    ids=str,
)
def test_log_probabilities_are_those_of_the_step_that_committed_the_token(tiny_network, tiny_client, settings):
    body = {"prompt": PROMPT, "max_tokens": 14, "ignore_eos": True, "logprobs": 3, "return_token_ids": True, **settings}
    choice = tiny_client.post("/v1/completions", json=body).json()["choices"][0]
    ids, steps, logprobs = choice["token_ids"], choice["commit_steps"], choice["logprobs"]
    assert len(ids) == len(steps) == len(logprobs["token_logprobs"]) == 14
    for position, (token, step) in enumerate(zip(ids, steps, strict=True)):
        # The canvas before that step.
        response = [other if when < step else MASK for other, when in zip(ids, steps, strict=True)]
        with torch.inference_mode():
            packed = PackedTokens(torch.tensor(PROMPT + response), (len(PROMPT) + 14,))
            logits = tiny_network.head(tiny_network.hidden_states(packed))[len(PROMPT) + position]
        logits = logits.clone()
        for biased, bias in settings.get("logit_bias", {}).items():
            logits[int(biased)] += bias
        expected = logits.log_softmax(dim=0)
        assert logprobs["token_logprobs"][position] == pytest.approx(float(expected[token]), abs=1e-3)
        best = [int(other) for other in expected[:320].argsort(descending=True) if other != MASK][:3]
        reported = logprobs["top_logprobs"][position]
        assert {f"token_id:{other}" for other in (*best, token)} == reported.keys()
        for other in best:
            assert reported[f"token_id:{other}"] == pytest.approx(float(expected[other]), abs=1e-3)


def test_events_carry_the_same_confidence(tiny_client):
    body = {"prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
    choice = tiny_client.post("/v1/completions", json={**body, "logprobs": 0}).json()["choices"][0]
    for name, data in events_of(tiny_client.post("/v1/denoise", json=body)):
        for change in data["changes"] if name == "step" else ():
            logprob = choice["logprobs"]["token_logprobs"][change["position"]]
            assert logprob == pytest.approx(math.log(change["confidence"]), abs=1e-6)
            assert choice["commit_steps"][change["position"]] == change["step"]


def test_alternatives_of_one_request_are_not_those_of_its_neighbours(tiny_client):
    bodies = [{"prompt": PROMPT, "max_tokens": 6, "n": 2, "ignore_eos": True, "logprobs": number} for number in (0, 5)]
    none, five = (tiny_client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"] for body in bodies)
    assert none["token_logprobs"] == pytest.approx(five["token_logprobs"], abs=1e-5)
    assert all(len(top) == 1 for top in none["top_logprobs"])
    assert all(5 <= len(top) <= 6 for top in five["top_logprobs"])


def test_text_offsets_point_at_the_tokens(http):
    body = {"prompt": "Once upon a time", "max_tokens": 24, "logprobs": 1, "echo": True}
    answer = http.post("/v1/completions", json=body).json()
    choice = answer["choices"][0]
    logprobs = choice["logprobs"]
    assert choice["text"].startswith("Once upon a time")
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert "".join(logprobs["tokens"]) == choice["text"]
    num_prompt = answer["usage"]["prompt_tokens"]
    assert logprobs["token_logprobs"][:num_prompt] == [None] * num_prompt
    assert logprobs["top_logprobs"][:num_prompt] == choice["commit_steps"][:num_prompt] == [None] * num_prompt
    assert all(logprob <= 0 for logprob in logprobs["token_logprobs"][num_prompt:])
    assert len(logprobs["tokens"]) == num_prompt + answer["usage"]["completion_tokens"]


@pytest.mark.parametrize("prompt", [[5, 40, 41, 5, 42], "ab<|eot_id|>cd", "▒ä"], ids=str)
def test_text_offsets_are_right_beside_special_tokens_and_split_characters(http, demo_tokenizer, prompt):
    body = {
        "prompt": prompt,
        "max_tokens": 4,
        "ignore_eos": True,
        "echo": True,
        "logprobs": 0,
        "return_token_ids": True,
    }
    (choice,) = http.post("/v1/completions", json=body).json()["choices"]
    logprobs, ids = choice["logprobs"], [*choice["prompt_token_ids"], *choice["token_ids"]]
    for token_id, token, offset in zip(ids, logprobs["tokens"], logprobs["text_offset"], strict=True):
        if token_id not in demo_tokenizer.special_tokens and "\ufffd" not in token:
            assert choice["text"][offset:].startswith(token)
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])


@pytest.mark.parametrize("more", [{}, {"echo": True}, {"stop": "a"}], ids=str)
def test_streamed_log_probabilities_add_up_to_the_plain_ones(http, more):
    body = {"prompt": "Once upon a time", "max_tokens": 24, "logprobs": 2, **more}
    plain = http.post("/v1/completions", json=body).json()["choices"][0]
    text = http.post("/v1/completions", json={**body, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    assert "".join(choice["text"] for choice in choices) == plain["text"]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert [value for choice in choices for value in choice["logprobs"][name]] == plain["logprobs"][name]
    assert [step for choice in choices for step in choice["commit_steps"]] == plain["commit_steps"]


def test_the_openai_client_reads_the_log_probabilities_of_a_chat(live_server):
    with openai.OpenAI(base_url=f"{live_server}/v1", api_key="unused") as client:
        choice = client.chat.completions.create(
            model="llada-demo",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            logprobs=True,
            top_logprobs=3,
        ).choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    assert b"".join(bytes(token.bytes) for token in content).decode() == choice.message.content
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(max(top.logprob for top in token.top_logprobs))
        # Greedy decoding commits the most probable token.
        assert token.top_logprobs[0].token == token.token
    assert np.isfinite([token.logprob for token in content]).all()


def test_tokens_may_be_written_as_ids_with_the_bytes_of_their_text(demo_tokenizer):
    (token_id,) = demo_tokenizer.encode_plain(" fox")
    names = TokenNames(demo_tokenizer, as_ids=True)
    assert (names.of(token_id), names.utf8_of(token_id)) == (f"token_id:{token_id}", list(b" fox"))
    assert TokenNames(demo_tokenizer).of(token_id) == " fox"
    assert TokenNames(None).of(7) == "token_id:7"
