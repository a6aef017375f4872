import asyncio
import threading
import time

import pytest

from llada_core.errors import InvalidParameterError
from server.http.api_error import APIError
from server.prompts import Prompts
from server.schemas.conversation import ChatFields, ChatMessage


def prompts_with(tokenizer, max_waiting=8):
    return Prompts(tokenizer, max_model_len=64, max_waiting=max_waiting)


def test_ids_pass_through_unchanged_and_need_no_tokenizer():
    prompts = prompts_with(None)
    assert asyncio.run(prompts.encode_prompt([1, 2])) == [1, 2]
    assert asyncio.run(prompts.encode_segment([], "canvas")) == []
    assert prompts.text_of([1, 2]) == ""


@pytest.mark.parametrize(
    ("encode", "field"),
    [
        (lambda prompts: prompts.encode_prompt("x"), "prompt"),
        (lambda prompts: prompts.encode_segment("x", "suffix"), "suffix"),
        (lambda prompts: prompts.encode_messages([ChatMessage(role="user", content="x")], ChatFields()), "messages"),
    ],
)
def test_text_without_a_tokenizer_is_refused_by_the_name_of_its_field(encode, field):
    with pytest.raises(InvalidParameterError, match="has no tokenizer") as refused:
        asyncio.run(encode(prompts_with(None)))
    assert refused.value.field == field


def test_a_prompt_may_write_special_tokens_but_a_segment_may_not(demo_tokenizer):
    prompts = prompts_with(demo_tokenizer)
    end = demo_tokenizer.token_to_id("<|eot_id|>")
    assert end in asyncio.run(prompts.encode_prompt("a<|eot_id|>"))
    assert end not in asyncio.run(prompts.encode_segment("a<|eot_id|>", "canvas"))


def test_a_prompt_is_shown_as_it_was_sent_or_decoded(demo_tokenizer):
    prompts = prompts_with(demo_tokenizer)
    assert prompts.text_of("Once") == prompts.text_of(demo_tokenizer.encode_plain("Once")) == "Once"


def long_message(text):
    return [ChatMessage(role="user", content=text)]


@pytest.mark.parametrize(
    ("encode", "field"),
    [
        (lambda prompts, text: prompts.encode_prompt(text), "prompt"),
        (lambda prompts, text: prompts.encode_segment(text, "suffix"), "suffix"),
        (lambda prompts, text: prompts.encode_messages(long_message(text), ChatFields()), "messages"),
    ],
)
def test_a_text_that_cannot_fit_is_refused_before_it_is_encoded(demo_tokenizer, monkeypatch, encode, field):
    prompts = prompts_with(demo_tokenizer)
    room = 64 * demo_tokenizer.longest_token
    asyncio.run(encode(prompts, "x" * room))
    for name in ("encode", "encode_plain", "encode_chat"):
        monkeypatch.setattr(demo_tokenizer, name, lambda *args, **kwargs: pytest.fail("it was encoded"))
    with pytest.raises(APIError, match=f"{field} has {room + 1} characters; max_model_len is 64 tokens") as refused:
        asyncio.run(encode(prompts, "x" * (room + 1)))
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, field, "context_length_exceeded")


def test_the_spaces_around_a_message_do_not_count(demo_tokenizer):
    text = " " * 100_000 + "Hello" + "\n" * 100_000
    assert asyncio.run(prompts_with(demo_tokenizer).encode_messages(long_message(text), ChatFields()))


class SlowTokenizer:
    """Counts how many texts are encoded at once."""

    longest_token = None

    def __init__(self):
        self.lock, self.may_end = threading.Lock(), threading.Event()
        self.now = self.most = 0

    def encode(self, text, *, add_special_tokens):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.may_end.wait(10)
        with self.lock:
            self.now -= 1
        return [len(text)]


def test_two_texts_are_encoded_at_once_and_more_than_may_wait_are_refused():
    tokenizer = SlowTokenizer()

    async def ask():
        prompts = prompts_with(tokenizer, max_waiting=3)
        asked = [asyncio.create_task(prompts.encode_text("x" * i)) for i in range(6)]
        await asyncio.sleep(0.2)
        tokenizer.may_end.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    *encoded, refused = asyncio.run(ask())
    assert encoded == [[i] for i in range(5)] and tokenizer.most == 2
    assert isinstance(refused, APIError) and (refused.status, refused.code) == (429, "queue_full")


def test_a_client_that_goes_away_keeps_its_turn_until_its_text_is_encoded():
    tokenizer = SlowTokenizer()

    async def ask():
        prompts = prompts_with(tokenizer)
        for _ in range(6):
            task = asyncio.create_task(prompts.encode_text("x"))
            await asyncio.sleep(0.02)
            task.cancel()
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert tokenizer.now == tokenizer.most == 2
        tokenizer.may_end.set()
        return await prompts.encode_text("xyz")

    assert asyncio.run(ask()) == [3]
