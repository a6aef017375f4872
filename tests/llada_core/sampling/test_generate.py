import pytest

from llada_core import GenerationParams, generate
from llada_core.errors import InvalidParameterError
from llada_core.text.tokenizer import Message

QUESTION = "What is the capital of France?"


def test_a_chat_may_be_given_as_messages_or_as_json_has_them(demo, demo_tokenizer):
    turns = [Message("user", QUESTION)]
    prompts = [turns, [{"role": "user", "content": QUESTION}], demo_tokenizer.encode_chat(turns)]
    results = generate(demo, prompts, GenerationParams(gen_length=16), tokenizer=demo_tokenizer)
    assert {result.text for result in results} == {"The capital of France is Paris."}


@pytest.mark.parametrize(
    "turn", [{"role": "user"}, {"role": "user", "content": 5}, {"role": "user", "text": "a"}], ids=str
)
def test_what_is_no_message_is_shown(demo, demo_tokenizer, turn):
    with pytest.raises(InvalidParameterError, match="a message must have a role and a content"):
        generate(demo, [[turn]], GenerationParams(gen_length=4), tokenizer=demo_tokenizer)


def test_text_without_a_tokenizer_is_refused(demo):
    for prompt in ("Once", [{"role": "user", "content": "Once"}]):
        with pytest.raises(InvalidParameterError, match="without a tokenizer"):
            generate(demo, [prompt], GenerationParams(gen_length=4))
