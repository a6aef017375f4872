import pytest
from pydantic import ValidationError

from server.http.api_error import APIError
from server.schemas.conversation import ChatMessage
from server.schemas.openai import ChatCompletionRequest, CompletionRequest
from server.schemas.responses import ResponseRequest

QUESTION = [{"role": "user", "content": "Hi."}]


def test_a_participants_name_is_accepted_as_agents_always_send_it():
    for name in ("alice", "", None):
        assert ChatMessage(role="user", content="Hi.", name=name).as_turn().content == "Hi."


def test_an_earlier_answer_may_carry_empty_reasoning():
    for field in ("reasoning", "reasoning_content"):
        assert ChatMessage.model_validate({"role": "assistant", "content": "Yes.", field: ""}).text == "Yes."


def test_an_answer_that_ended_before_it_thought_or_said_anything_can_be_sent_back():
    for fields in ({"reasoning": ""}, {"reasoning_content": ""}, {"reasoning": "", "reasoning_content": ""}):
        turn = ChatMessage.model_validate({"role": "assistant", "content": None, **fields}).as_turn()
        assert (turn.content, turn.thinking) == ("", "")
        with pytest.raises(ValidationError, match="have content"):
            ChatMessage.model_validate({"role": "user", "content": None, **fields})
    with pytest.raises(ValidationError, match="have content"):
        ChatMessage.model_validate({"role": "assistant", "content": None, "reasoning": None, "reasoning_content": None})


def test_an_earlier_answer_may_carry_its_thinking_under_either_name_or_both():
    both = {"reasoning": "Hm", "reasoning_content": "Hm"}
    for fields in ({"reasoning": "\nHm\n"}, {"reasoning_content": "Hm"}, both):
        message = ChatMessage.model_validate({"role": "assistant", "content": None, **fields})
        assert (message.as_turn().thinking, message.thinking_field) == ("Hm", list(fields)[-1])
    with pytest.raises(ValidationError, match="only one of them"):
        ChatMessage.model_validate({"role": "assistant", "content": "Yes.", **both, "reasoning": "No"})


@pytest.mark.parametrize(
    "neutral",
    [
        {"reasoning_effort": "none"},
        {"verbosity": "medium"},
        {"stream_options": {}},
        {"stream_options": {"include_usage": False}},
        {"stream_options": {"include_usage": False, "include_obfuscation": False}},
        {"prompt_cache_key": "k", "safety_identifier": "s", "user": "u"},
    ],
    ids=str,
)
def test_forms_that_ask_for_nothing_are_accepted_without_a_stream(neutral):
    ChatCompletionRequest.model_validate({"messages": QUESTION, **neutral})
    CompletionRequest.model_validate({"prompt": "Hi.", **neutral})


def test_the_usage_of_a_stream_needs_a_stream_and_the_error_names_no_class():
    with pytest.raises(APIError) as caught:
        ChatCompletionRequest.model_validate({"messages": QUESTION, "stream_options": {"include_usage": True}})
    assert caught.value.param == "stream_options"
    assert caught.value.message == "stream_options.include_usage is true; it must be absent unless stream is true"


@pytest.mark.parametrize(
    "neutral",
    [
        {"reasoning": {"effort": None, "summary": None}},
        {"reasoning": {}},
        {"text": {"verbosity": "medium"}},
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}},
        {"text": {}},
    ],
    ids=str,
)
def test_neutral_forms_of_the_responses_endpoint_are_accepted(neutral):
    ResponseRequest.model_validate({"input": "Hi.", **neutral})
