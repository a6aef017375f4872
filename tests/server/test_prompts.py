import asyncio

import pytest

from llada_core.errors import InvalidParameterError
from server.prompts import Prompts
from server.schemas.conversation import ChatFields, ChatMessage


def test_ids_pass_through_unchanged_and_need_no_tokenizer():
    prompts = Prompts(None)
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
        asyncio.run(encode(Prompts(None)))
    assert refused.value.field == field


def test_a_prompt_may_write_special_tokens_but_a_segment_may_not(demo_tokenizer):
    prompts = Prompts(demo_tokenizer)
    end = demo_tokenizer.token_to_id("<|eot_id|>")
    assert end in asyncio.run(prompts.encode_prompt("a<|eot_id|>"))
    assert end not in asyncio.run(prompts.encode_segment("a<|eot_id|>", "canvas"))


def test_a_prompt_is_shown_as_it_was_sent_or_decoded(demo_tokenizer):
    prompts = Prompts(demo_tokenizer)
    assert prompts.text_of("Once") == prompts.text_of(demo_tokenizer.encode_plain("Once")) == "Once"
