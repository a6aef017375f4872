import pytest

from server.schemas.openai import ChatCompletionRequest, CompletionRequest
from server.schemas.responses import ResponseRequest

QUESTION = [{"role": "user", "content": "Hi."}]


@pytest.mark.parametrize(
    ("effort", "preset"),
    [
        ("none", "fast"),
        ("minimal", "fast"),
        ("instant", "fast"),
        ("low", "fast"),
        ("medium", "balanced"),
        ("high", "exact"),
        ("xhigh", "exact"),
        (None, "exact"),
    ],
)
def test_the_effort_chooses_a_preset(effort, preset):
    assert ChatCompletionRequest(messages=QUESTION, reasoning_effort=effort).chosen_preset == preset
    assert ResponseRequest(input="Hi.", reasoning={"effort": effort, "summary": None}).chosen_preset == preset


def test_a_preset_takes_precedence_over_its_other_names():
    assert CompletionRequest(prompt="Hi.", preset="exact", realtime=True).chosen_preset == "exact"
    assert CompletionRequest(prompt="Hi.", preset="balanced", reasoning_effort="low").chosen_preset == "balanced"
    assert CompletionRequest(prompt="Hi.", realtime=True, reasoning_effort="high").chosen_preset == "fast"
    assert ResponseRequest(input="Hi.", preset="exact", reasoning={"effort": "low"}).chosen_preset == "exact"


def test_a_field_given_with_an_effort_takes_precedence_over_its_preset():
    body = CompletionRequest(prompt="Hi.", reasoning_effort="low", cache="none", steps=4)
    params = body.to_params(gen_length=8, seed=0)
    assert (params.cache, params.steps, params.entropy_threshold) == ("none", 4, None)


def test_equal_lengths_under_several_names_are_one_length():
    body = ChatCompletionRequest(messages=QUESTION, max_tokens=8, max_completion_tokens=8, gen_length=8)
    assert body.length == 8
