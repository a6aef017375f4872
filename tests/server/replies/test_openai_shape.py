"""The objects of OpenAI's two completion endpoints, without a server."""

import json
from importlib.metadata import version

import pytest

from server.replies.dialects import ChatDialect, CompletionDialect
from server.replies.envelope import Envelope
from server.replies.openai_shape import OpenAIShape
from server.replies.usage import Usage
from server.schemas.openai import ChatCompletionRequest, CompletionRequest

ENVELOPE = Envelope("id-1", 1_700_000_000, "tiny")
USAGE = Usage(prompt_tokens=2, completion_tokens=3, denoising_steps=1, forward_passes=1)


def completion_shape(**fields):
    return OpenAIShape(ENVELOPE, CompletionDialect(), CompletionRequest(prompt=[1], **fields), [[1], [2, 3]])


def chat_shape(**fields):
    body = ChatCompletionRequest(messages=[{"role": "user", "content": "x"}], **fields)
    return OpenAIShape(ENVELOPE, ChatDialect(), body, [[4, 5]])


def data_of(event):
    return json.loads(event.data)


def test_an_answer_has_the_envelope_its_choices_usage_and_settings():
    shape = completion_shape()
    choice = shape.choice(0, {"text": "x"}, finish_reason="stop", token_ids=[7])
    assert choice == {"index": 0, "text": "x", "logprobs": None, "finish_reason": "stop", "stop_reason": None}
    assert shape.completed([choice], USAGE, {"seed": 1}) == {
        "id": "id-1",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "tiny",
        "system_fingerprint": f"llada-{version('llada')}-tiny",
        "choices": [choice],
        "usage": USAGE.as_completion(),
        "generation_params": {"seed": 1},
    }


def test_choices_follow_their_prompts_n_at_a_time():
    shape = completion_shape(n=2)
    assert shape.num_choices == 4
    assert [shape.prompt_of(index) for index in range(4)] == [[1], [1], [2, 3], [2, 3]]


def test_prompt_ids_stand_on_every_choice_of_a_completion_but_once_on_a_chat():
    shape = completion_shape(return_token_ids=True)
    choices = [shape.choice(index, {"text": ""}, finish_reason="stop", token_ids=[9]) for index in range(2)]
    answer = shape.completed(choices, USAGE, {})
    assert [choice["prompt_token_ids"] for choice in answer["choices"]] == [[1], [2, 3]]
    assert [choice["token_ids"] for choice in answer["choices"]] == [[9], [9]]
    chat = chat_shape(return_token_ids=True)
    answer = chat.completed([chat.choice(0, {}, finish_reason="stop")], USAGE, {})
    assert answer["prompt_token_ids"] == [4, 5]
    assert "prompt_token_ids" not in answer["choices"][0]


def test_only_the_first_chunk_of_a_choice_carries_the_prompt_ids():
    shape = chat_shape(return_token_ids=True, stream=True)
    first, second = (
        data_of(
            shape.chunk(
                shape.choice(0, {"delta": {}}, finish_reason=None), is_first=is_first, usage=lambda: USAGE, denoising={}
            )
        )
        for is_first in (True, False)
    )
    assert first.pop("prompt_token_ids") == [4, 5]
    assert first == second
    assert (first["object"], first["denoising"]) == ("chat.completion.chunk", {})


def test_every_chunk_carries_the_usage_so_far_if_that_was_requested():
    options = {"include_usage": True, "continuous_usage_stats": True}
    for stream_options, usage in ((options, USAGE.as_completion()), ({"include_usage": True}, None)):
        shape = chat_shape(stream=True, stream_options=stream_options)
        choice = shape.choice(0, {"delta": {}}, finish_reason=None)
        assert data_of(shape.chunk(choice, is_first=True, usage=lambda: USAGE))["usage"] == usage


def test_usage_that_no_chunk_carries_is_not_counted():
    shape = chat_shape(stream=True, stream_options={"include_usage": True})
    choice = shape.choice(0, {"delta": {}}, finish_reason=None)
    shape.chunk(choice, is_first=True, usage=lambda: pytest.fail("every chunk of n choices would count all n"))


def test_a_stream_ends_with_done_after_the_usage_if_it_was_requested():
    assert [event.data for event in chat_shape(stream=True).closing(USAGE)] == ["[DONE]"]
    usage, done = chat_shape(stream=True, stream_options={"include_usage": True}).closing(USAGE)
    assert (data_of(usage)["choices"], data_of(usage)["usage"]) == ([], USAGE.as_completion())
    assert done.data == "[DONE]"
