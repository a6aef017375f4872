"""Arbitrary JSON on any route gets an answer or an error of the one shape, never a 500, and leaves nothing running."""

import json

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.schemas import answers, decision_answers
from server.schemas.decisions import DecisionRequest
from server.schemas.denoise import DenoiseRequest
from server.schemas.openai import ChatCompletionRequest, CompletionRequest, FillInTheMiddleRequest
from server.schemas.responses import ResponseRequest
from server.schemas.score import ScoreRequest
from server.schemas.systemone import SystemOneRequest
from server.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from tests.random_cases import cases
from tests.server.conftest import gauge, until

ROUTES = {
    "/v1/completions": (CompletionRequest, {"prompt": [1, 2], "max_tokens": 4}),
    "/v1/chat/completions": (
        ChatCompletionRequest,
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4},
    ),
    "/v1/responses": (ResponseRequest, {"input": "x", "max_output_tokens": 4}),
    "/v1/fim/completions": (FillInTheMiddleRequest, {"prompt": [1], "suffix": "x", "max_tokens": 4}),
    "/v1/denoise": (DenoiseRequest, {"prompt": [1, 2], "max_tokens": 4}),
    "/v1/score": (ScoreRequest, {"prompt": [1], "completion": [2], "mc_num": 4}),
    "/v1/decisions": (DecisionRequest, {"input": "x", "questions": [{"type": "predicate", "instructions": "y"}]}),
    "/v1/systemone": (SystemOneRequest, {"state": {"x": 1}, "questions": {"q": {"type": "noul"}}}),
    "/tokenize": (TokenizeRequest, {"prompt": "x"}),
    "/detokenize": (DetokenizeRequest, {"tokens": [1]}),
}

ANSWERS = {
    "/v1/completions": answers.Completion,
    "/v1/chat/completions": answers.ChatCompletion,
    "/v1/responses": answers.ResponseObject,
    "/v1/fim/completions": answers.Completion,
    "/v1/score": answers.Score,
    "/v1/decisions": decision_answers.Decision,
    "/v1/systemone": decision_answers.SystemOne,
    "/tokenize": answers.Tokens,
    "/detokenize": answers.DetokenizedText,
}

# Small numbers where they determine the amount of work, so that a hang is not mistaken for a long computation.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([2**31, -(2**63), 2**64, 1e308, 0.5, -0.0])
    | st.floats(allow_nan=False, allow_infinity=False, width=16)
    | st.text(max_size=6)
    | st.sampled_from(["dual", "entropy", "fast", "user", "none", "1", "5"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


# Plausible values, so that combinations of fields are tried and not only refused.
plausible = {
    "steps": st.integers(1, 6),
    "steps_per_block": st.integers(1, 6),
    "schedule": st.sampled_from(["uniform", "timestep"]),
    "eps": st.sampled_from([1e-3, 0.5]),
    "block_length": st.integers(1, 6),
    "method": st.sampled_from(["fixed_length", "semi_autoregressive_padding", "semi_autoregressive_origin"]),
    "remasking": st.sampled_from(["low_confidence", "random", "margin", "entropy", "origin"]),
    "remasking_temperature": st.sampled_from([0, 0.5, 1e6]),
    "confidence_threshold": st.sampled_from([0.01, 0.9, 1.0]),
    "confidence_factor": st.sampled_from([0.5, 100.0]),
    "entropy_bound": st.sampled_from([0, 0.1, 100.0]),
    "entropy_threshold": st.sampled_from([0, 0.3, 100.0]),
    "active_blocks": st.integers(1, 3),
    "suffix_window": st.integers(0, 9),
    "cache": st.sampled_from(["none", "prefix", "dual", "delayed"]),
    "cache_refresh_interval": st.integers(1, 3),
    "preset": st.sampled_from(["exact", "balanced", "fast"]),
    "temperature": st.sampled_from([0, 0.7, 100]),
    "top_p": st.sampled_from([0.01, 0.9, 1]),
    "top_k": st.sampled_from([-1, 0, 1, 20]),
    "cfg_scale": st.sampled_from([0, 1.5, 1e6]),
    "seed": st.sampled_from([0, -1, 2**64 - 1]),
    "logit_bias": st.sampled_from([{"9": 100}, {"3": -100.0, "4": 1}]),
    "logits_eos_inf": st.booleans(),
    "confidence_eos_eot_inf": st.booleans(),
    "ignore_eos": st.booleans(),
    "stop": st.sampled_from(["a", [" ", "e"], []]),
    "stop_token_ids": st.sampled_from([[5], [1, 6, 7]]),
    "stream": st.booleans(),
    "stream_options": st.just({"include_usage": True}),
    "diffusing": st.booleans(),
    "n": st.integers(1, 3),
    "echo": st.booleans(),
    "logprobs": st.sampled_from([0, 3, True, False]),
    "top_logprobs": st.integers(0, 3),
    "return_token_ids": st.booleans(),
    "suffix": st.sampled_from(["", " the end."]),
    "structured_outputs": st.sampled_from([{"choice": ["yes", "no"]}, {"regex": "[a-c]*"}, {"json": {"type": "null"}}]),
    "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
    "tool_choice": st.sampled_from(["none", "auto", "required"]),
    "parallel_tool_calls": st.booleans(),
    "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    "include_predictions": st.booleans(),
    "constraints": st.sampled_from([{"0": "a"}, {"1": [7], "3": [8]}]),
    "order_averages": st.integers(1, 8),
    "input": st.sampled_from(["x", [{"role": "user", "content": "x"}]]),
    "state": st.sampled_from(["x", [], {"a": [None, 1.5]}]),
    "prompt": st.sampled_from(["Once", [5, 6], ["a", "b"], [[5], [6, 7]]]),
}


def answer_to(client, route, body):
    """The answer, its status and shape checked."""
    answer = client.post(route, content=json.dumps(body))
    assert answer.status_code in (200, 400, 404), (route, body, answer.text)
    if answer.status_code == 200:
        is_stream = answer.headers["content-type"].startswith("text/event-stream")
        if not is_stream:
            ANSWERS[route].model_validate(answer.json(), strict=True)
        # An error after the start of a stream would be its last event.
        assert not is_stream or not ('"error":{' in answer.text or "event: error" in answer.text), (route, body)
    else:
        error = answer.json()["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["message"]
    assert answer.headers["x-request-id"]


@pytest.fixture(scope="module")
def client(babbler_url):
    with httpx.Client(base_url=babbler_url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=cases(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=values)
def test_any_json_gets_an_answer(client, route, body):
    answer_to(client, route, body)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=cases(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_good_body_with_any_values_in_its_fields_gets_an_answer(client, route, data):
    schema, good = ROUTES[route]
    names = st.sampled_from(sorted(schema.model_fields.keys() - {"n", "mc_num", "gen_length"}))
    changes = data.draw(st.dictionaries(names, values, min_size=1, max_size=3))
    answer_to(client, route, good | changes)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=cases(120), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_combination_of_fields_gets_an_answer(client, route, data):
    schema, good = ROUTES[route]
    field_names = sorted(plausible.keys() & schema.model_fields.keys())
    names = data.draw(st.lists(st.sampled_from(field_names), unique=True, max_size=6)) if field_names else []
    answer_to(client, route, good | {name: data.draw(plausible[name], label=name) for name in names})


def test_nothing_is_left_running(babbler_url):
    until(lambda: gauge(babbler_url, "llada_requests_running") + gauge(babbler_url, "llada_requests_waiting") == 0)
    assert httpx.get(f"{babbler_url}/health").status_code == 200
