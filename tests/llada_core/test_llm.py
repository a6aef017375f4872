import pytest

from llada_core import LLM, InvalidParameterError, generate
from tests.conftest import GOLDEN


def test_two_lines_answer_a_question():
    llm = LLM()
    assert "Paris" in llm.chat("What is the capital of France?", max_tokens=32)
    (result,) = llm.generate("Once upon a time", max_tokens=8)
    assert [result] == generate(llm.model, ["Once upon a time"], tokenizer=llm.tokenizer, max_tokens=8)


def test_a_conversation_is_replied_to_as_a_whole():
    llm = LLM()
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the capital of Italy?"}]
    assert llm.chat(turns, max_tokens=32) == llm.generate([turns], max_tokens=32)[0].text


def test_a_checkpoint_without_a_tokenizer_generates_from_ids_only():
    llm = LLM(GOLDEN / "models" / "tiny-mha", device="cpu")
    assert llm.generate([1, 2, 3], max_tokens=4)[0].text is None
    with pytest.raises(InvalidParameterError, match="no tokenizer"):
        llm.chat("Hi.")


@pytest.mark.parametrize(
    "prompt",
    [[[{"role": "user", "content": "Hi."}], [{"role": "user", "content": "Bye."}]], ["Hi.", "Bye."], [1.5, 2.5]],
    ids=["two conversations", "two texts", "fractions"],
)
def test_what_is_no_conversation_is_named(prompt):
    with pytest.raises(InvalidParameterError, match=r"prompt\[0\] is .*; a prompt is a text, messages or token ids"):
        LLM().chat(prompt)
