import numpy as np
import pytest

from llada_core import GenerationParams, denoise, generate
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


def test_a_text_a_chat_or_ids_are_one_prompt(demo, demo_tokenizer):
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    for prompt in ("Once upon a time", chat, [5, 6, 7], np.array([5, 6, 7]), [Message("user", "Hi.")]):
        (alone,) = generate(demo, prompt, tokenizer=demo_tokenizer, max_tokens=8)
        assert [alone] == generate(demo, [prompt], tokenizer=demo_tokenizer, max_tokens=8)
    assert generate(demo, [], tokenizer=demo_tokenizer) == []


def test_settings_may_be_given_without_params(tiny):
    params = GenerationParams.with_preset("fast", gen_length=12, seed=3)
    assert generate(tiny, [[1, 2]], max_tokens=12, preset="fast", seed=3) == generate(tiny, [[1, 2]], params)
    assert list(denoise(tiny, [1, 2], gen_length=4)) == list(denoise(tiny, [1, 2], GenerationParams(gen_length=4)))
    assert len(generate(tiny, [[1, 2]], ignore_eos=True)[0].token_ids) == GenerationParams().gen_length


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"params": GenerationParams(), "seed": 1}, "seed is 1 beside params"),
        ({"max_tokens": 4, "gen_length": 4}, "max_tokens is given beside gen_length"),
        ({"max_token": 4}, "max_token is no setting; known are max_tokens"),
        ({"preset": "turbo"}, "preset is 'turbo'"),
        ({"max_tokens": 0}, "gen_length is 0"),
    ],
)
def test_settings_that_contradict_or_are_unknown_are_refused_by_name(tiny, settings, message):
    with pytest.raises(InvalidParameterError, match=message):
        generate(tiny, [[1, 2]], **settings)
