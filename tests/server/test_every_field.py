"""Every field of every body changes something that the client can see: none is accepted and ignored.

One request is sent with the field and one without. Ids, times and returned settings are left out of the comparison, so
that a difference is an effect. The table must name every field of the schema.
"""

import json
import logging
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.text.tokenizer import Message
from server.http.errors import to_api_error
from server.schemas.decisions import DecisionRequest
from server.schemas.denoise import DenoiseRequest
from server.schemas.openai import ChatCompletionRequest, CompletionRequest, FillInTheMiddleRequest
from server.schemas.responses import ResponseRequest
from server.schemas.score import ScoreRequest
from server.schemas.systemone import SystemOneRequest
from server.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from tests.server.conftest import serving

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
FIM, DENOISE, SCORE = "/v1/fim/completions", "/v1/denoise", "/v1/score"
DECISIONS, SYSTEMONE = "/v1/decisions", "/v1/systemone"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"

TOKENIZER = load_tokenizer(DEMO_FOLDER)
LETTER_A = TOKENIZER.encode_plain("a")[0]
ONLY_A = {"logit_bias": {str(LETTER_A): 100}}
ONLY_EOS = {"logit_bias": {"1": 100}}
STORY = "Tell me a story about a fox."
CONVERSATION = [{"role": "user", "content": STORY}]
CHAT_IDS = TOKENIZER.encode_chat([Message("user", STORY)])
ONCE = [{"role": "assistant", "content": "Once"}]

# Noise and a short canvas, so that any change of a number, a choice or an order shows in the tokens.
GENERATED = {"max_tokens": 16, "temperature": 1.0, "seed": 0, "ignore_eos": True}
TOKENS = {"return_token_ids": True, "logprobs": 2}
BASES: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": CHAT_IDS, **GENERATED, **TOKENS},
    FIM: {"prompt": CHAT_IDS, "suffix": " the end.", **GENERATED, **TOKENS},
    CHAT: {"messages": CONVERSATION, **GENERATED, **TOKENS, "logprobs": True, "top_logprobs": 2},
    RESPONSES: {"input": STORY, **GENERATED},
    DENOISE: {"prompt": CHAT_IDS, **GENERATED},
    SCORE: {"prompt": STORY, "completion": STORY, "mc_num": 8, "seed": 0},
    DECISIONS: {"input": STORY, "questions": [{"type": "predicate", "instructions": "It is true."}]},
    SYSTEMONE: {"state": STORY, "questions": {"a": {"type": "noul", "instructions": "Is it true?"}}},
    TOKENIZE: {"prompt": STORY},
    DETOKENIZE: {"tokens": [20, 30]},
}
BODIES = {
    COMPLETIONS: CompletionRequest,
    FIM: FillInTheMiddleRequest,
    CHAT: ChatCompletionRequest,
    RESPONSES: ResponseRequest,
    DENOISE: DenoiseRequest,
    SCORE: ScoreRequest,
    DECISIONS: DecisionRequest,
    SYSTEMONE: SystemOneRequest,
    TOKENIZE: TokenizeRequest,
    DETOKENIZE: DetokenizeRequest,
}


@dataclass(frozen=True)
class Case:
    """A field and a value that has an effect; None removes a field.

    Attributes:
        beside: further fields of both requests.
        instead: further changes to the request with the field.
    """

    name: str
    value: Any
    beside: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, Any] = field(default_factory=dict)


# The default length, in few steps.
DEFAULT_LENGTH = {"max_tokens": None, "confidence_threshold": 0.01}
DIFFUSION = [
    Case("model", "another"),
    Case("max_tokens", 5),
    Case("max_completion_tokens", 5, DEFAULT_LENGTH),
    Case("gen_length", 5, DEFAULT_LENGTH),
    Case("steps", 4),
    Case("steps_per_block", 4),
    Case("schedule", "timestep", {"steps": 5, "temperature": 2.0}),
    Case("eps", 0.5, {"schedule": "timestep", "steps": 5}),
    Case("block_length", 4),
    Case("method", "semi_autoregressive_origin", {"block_length": 4}),
    Case("remasking", "random"),
    Case("remasking_temperature", 5.0),
    Case("confidence_threshold", 0.01),
    Case("confidence_factor", 50.0),
    Case("entropy_bound", 50.0),
    Case("entropy_threshold", 50.0),
    Case("active_blocks", 4, {"max_tokens": 32, "block_length": 8, "entropy_bound": 0.05}),
    Case("suffix_window", 0, {"max_tokens": 32, "block_length": 8}),
    Case("cache", "dual", {"max_tokens": 32, "block_length": 8}),
    Case("cache_refresh_interval", 1, {"max_tokens": 32, "block_length": 8, "cache": "dual"}),
    Case("preset", "fast"),
    Case("reasoning_effort", "low"),
    Case("realtime", True),
    Case("temperature", 0.0),
    Case("top_p", 0.01),
    Case("top_k", 1),
    Case("cfg_scale", 3.0),
    Case("seed", 9),
    Case("logit_bias", ONLY_A["logit_bias"]),
    Case("logits_eos_inf", True, ONLY_EOS),
    Case("confidence_eos_eot_inf", True, {"temperature": 0, "ignore_eos": False}),
    Case("ignore_eos", False, ONLY_EOS),
    Case("stop_token_ids", [LETTER_A], ONLY_A),
    Case("min_tokens", 8, {**ONLY_A, "stop_token_ids": [LETTER_A]}),
    Case("stop", "aa", ONLY_A),
]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALLING = {"tools": TOOLS, "tool_choice": "required", "ignore_eos": None, "max_tokens": 32}
STREAMED = [Case("stream", True)]
FORMS = [
    Case("structured_outputs", {"choice": ["yes", "no"]}, {"ignore_eos": None}),
    Case("response_format", {"type": "json_object"}, {"ignore_eos": None}),
]
OPENAI = [
    *DIFFUSION,
    *STREAMED,
    Case("n", 2),
    Case("stream_options", {"include_usage": True}, {"stream": True}),
    Case("diffusing", True, {"stream": True, "logprobs": None, "top_logprobs": None}),
    Case("return_token_ids", None),
    Case("return_tokens_as_token_ids", True),
    *FORMS,
]
CASES = {
    COMPLETIONS: [
        *OPENAI,
        Case("prompt", "Hello"),
        Case("suffix", " the end."),
        Case("echo", True),
        Case("logprobs", 0),
    ],
    FIM: [
        *(case for case in OPENAI if case not in FORMS and case.name not in ("ignore_eos", "method", "suffix_window")),
        Case("method", "fixed_length", {"max_tokens": 40}),
        Case("prompt", "Hello"),
        Case("suffix", " and so on."),
        Case("echo", True),
        Case("logprobs", 0),
    ],
    CHAT: [
        *OPENAI,
        Case("messages", [{"role": "user", "content": "Hello"}]),
        Case("add_generation_prompt", False),
        Case(
            "continue_final_message",
            True,
            {"messages": [*CONVERSATION, *ONCE], "add_generation_prompt": False},
        ),
        Case("logprobs", None, {"top_logprobs": None}),
        Case("top_logprobs", 1),
        Case("tools", TOOLS, {"tool_choice": "none"}),
        Case("tool_choice", "required", CALLING | {"tool_choice": "none"}),
        Case("parallel_tool_calls", True, CALLING | {"max_tokens": 96, "min_tokens": 80, "temperature": 5.0}),
    ],
    RESPONSES: [
        *DIFFUSION,
        *STREAMED,
        FORMS[0],
        Case("text", {"format": {"type": "json_object"}}, {"ignore_eos": None}),
        Case("input", "Hello"),
        Case("instructions", "Be brief."),
        Case("max_output_tokens", 5, DEFAULT_LENGTH),
        Case("reasoning", {"effort": "low"}),
        Case("include", ["message.output_text.logprobs"]),
        Case("top_logprobs", 2, {"include": ["message.output_text.logprobs"]}),
    ],
    DENOISE: [
        *DIFFUSION,
        *FORMS,
        Case("prompt", "Hello"),
        Case("messages", [{"role": "user", "content": "Hello"}], instead={"prompt": None}),
        Case("canvas", ["Once ", {"mask": 2}], instead={"prompt": None, "max_tokens": None}),
        Case("add_generation_prompt", False, {"prompt": None, "messages": CONVERSATION}),
        Case(
            "continue_final_message",
            True,
            {"prompt": None, "messages": [*CONVERSATION, *ONCE], "add_generation_prompt": False},
        ),
        Case("constraints", {"3": "x"}),
        Case("step", 7),
        Case("include_predictions", True),
        Case("top_logprobs", 2),
    ],
    SCORE: [
        Case("model", "another"),
        Case("prompt", "Hello"),
        Case("completion", "Once"),
        Case("mc_num", 9),
        Case("cfg_scale", 1.0),
        Case("seed", 9),
    ],
    DECISIONS: [
        Case("model", "another"),
        Case("input", "Hello"),
        Case("questions", [{"type": "predicate", "instructions": "It is false."}]),
        Case("order_averages", 1),
        Case("temperature", 3.0),
    ],
    SYSTEMONE: [
        Case("model", "another"),
        Case("state", {"text": "Hello"}),
        Case("questions", {"a": {"type": "noul", "instructions": "Is it false?"}}),
        Case("order_averages", 1),
        Case("temperature", 3.0),
    ],
    TOKENIZE: [
        Case("model", "another"),
        Case("prompt", "Hello"),
        Case("messages", CONVERSATION, instead={"prompt": None}),
        Case("return_token_strs", True),
        Case("tools", TOOLS, {"prompt": None, "messages": CONVERSATION}),
        Case("add_generation_prompt", False, {"prompt": None, "messages": CONVERSATION}),
        Case(
            "continue_final_message",
            True,
            {"prompt": None, "messages": [*CONVERSATION, *ONCE], "add_generation_prompt": False},
        ),
    ],
    DETOKENIZE: [Case("model", "another"), Case("tokens", [40])],
}
# Tested elsewhere: fields that are only logged, have a single value, or do nothing on the demo model.
ELSEWHERE = {
    *("user", "metadata", "safety_identifier", "prompt_cache_key"),
    "end_thinking",  # tests/server/test_family.py
    *("editing_threshold", "eos_early_stop", "max_post_steps", "min_transfer"),  # tests/server/test_block_causal.py
}
ELSEWHERE_ON = {
    DENOISE: {"stream", "fork"},  # true is its only value; tests/server/replies/test_forking.py
    # No form of an answer may stand beside the suffix, which is required; a gap has no EOS to ignore, and its masks are
    # followed by tokens, which are seen whatever the window.
    FIM: {"structured_outputs", "response_format", "ignore_eos", "suffix_window"},
    TOKENIZE: {"add_special_tokens"},  # test_special_tokens_are_added_only_when_requested
}

# Random weights are never sure that a text ends.
NEEDS_A_TRAINED_MODEL = {"confidence_eos_eot_inf"}

# Ids, times and returned settings prove that a field was read, not that it had an effect.
_NO_EFFECT = {
    *("id", "item_id", "created", "created_at", "elapsed_ms", "generation_params"),
    *("seed", "temperature", "order_averages", "top_p", "instructions", "max_output_tokens", "mc_num"),
    *("gen_length", "block_length", "steps"),
}


def without_echoes(value):
    if isinstance(value, dict):
        return {name: without_echoes(part) for name, part in value.items() if name not in _NO_EFFECT}
    return [without_echoes(part) for part in value] if isinstance(value, list) else value


def observed(client, route, body):
    """The status and every object of the answer."""
    answer = client.post(route, json=body)
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code, without_echoes(answer.json())
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return answer.status_code, [without_echoes(json.loads(line)) for line in data]


@pytest.fixture(scope="module")
def client(babbler_url):
    with httpx.Client(base_url=babbler_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def demo_client(demo, demo_tokenizer):
    with serving(demo, demo_tokenizer) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def known_answers():
    """The answers by request: most fields are compared with the same request without them."""
    return {}


@pytest.mark.parametrize(
    ("route", "case"),
    [pytest.param(route, case, id=f"{route}-{case.name}") for route, cases in CASES.items() for case in cases],
)
def test_a_field_has_an_effect(request, known_answers, route, case):
    client = request.getfixturevalue("demo_client" if case.name in NEEDS_A_TRAINED_MODEL else "client")
    without = {**BASES[route], **case.beside}
    with_it = {**without, **case.instead, case.name: case.value}
    # A single draw may be the same by chance.
    for draw in [{}] if "seed" not in without else [{"seed": seed} for seed in range(4)]:
        known = json.dumps([str(client.base_url), route, without | draw])
        if known not in known_answers:
            known_answers[known] = observed(client, route, without | draw)
        status, seen = known_answers[known]
        changed_status, changed = observed(client, route, draw | with_it if case.name == "seed" else with_it | draw)
        assert status == 200, seen
        assert changed_status == (404 if case.name == "model" else 200), changed
        if changed != seen:
            return
    pytest.fail(f"{case.name} changed nothing")


@pytest.mark.parametrize("route", BODIES)
def test_the_table_has_every_field(route):
    tried = {case.name for case in CASES[route]}
    assert tried | ELSEWHERE | ELSEWHERE_ON.get(route, set()) >= BODIES[route].model_fields.keys()
    assert not tried & ELSEWHERE_ON.get(route, set())


NEUTRAL = [(route, name) for route, body in BODIES.items() for name in body.neutral.keys() - body.model_fields.keys()]


@pytest.mark.parametrize(("route", "name"), sorted(NEUTRAL))
def test_a_field_without_effect_is_accepted_where_it_asks_for_none_and_else_refused_by_name(route, name):
    body = BODIES[route]
    for value in (None, *body.neutral[name]):
        body.model_validate({**BASES[route], name: value})
    with pytest.raises(ValidationError) as caught:
        body.model_validate({**BASES[route], name: {"type": "json_object"}})
    error = to_api_error(RequestValidationError(caught.value.errors()), "")
    assert (error.status, error.param, error.code) == (400, name, "unsupported_value")


@pytest.mark.parametrize(
    ("route", "body"),
    [
        (COMPLETIONS, {"prompt": [5], "max_tokens": 2}),
        (COMPLETIONS, {"prompt": [5], "max_tokens": 2, "stream": True}),
        (FIM, {"prompt": [5], "suffix": "", "max_tokens": 2}),
        (CHAT, {"messages": CONVERSATION, "max_tokens": 2}),
        (CHAT, {"messages": CONVERSATION, "structured_outputs": {"choice": ["a"]}}),
        (RESPONSES, {"input": STORY, "max_tokens": 2}),
        (DENOISE, {"prompt": [5], "max_tokens": 2}),
    ],
    ids=str,
)
def test_user_and_metadata_are_logged(demo, demo_tokenizer, caplog, route, body):
    # The line is written after the answer is sent, and before the server has ended.
    with caplog.at_level(logging.INFO, "server"), serving(demo, demo_tokenizer) as url:
        answer = httpx.post(url + route, json={**body, "user": "alice", "metadata": {"case": "7"}}, timeout=60)
    assert answer.status_code == 200, answer.text
    (line,) = [record.getMessage() for record in caplog.records if "alice" in record.getMessage()]
    assert "'case': '7'" in line
