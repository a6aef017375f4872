import pytest

from llada_core.sampling.prepare import Vocabulary
from server.canvases import Canvases, seed_or_random
from server.http.api_error import APIError
from server.schemas.denoise import DenoiseRequest, MaskGap
from server.schemas.openai import CompletionRequest


@pytest.fixture
def canvases(tiny):
    return Canvases(Vocabulary.of(tiny), max_model_len=64)


def body(**fields):
    return CompletionRequest(prompt=[1], **fields)


def test_choice_i_of_every_prompt_has_the_seed_plus_i(canvases):
    choices = canvases.choices(body(n=2, seed=7, max_tokens=4, logprobs=3), [[1], [2, 3]])
    assert [canvas.params.seed for canvas in choices] == [7, 8, 7, 8]
    assert [canvas.layout.prompt_length for canvas in choices] == [1, 1, 2, 2]
    assert {canvas.reporting.num_alternatives for canvas in choices} == {3}


def test_a_seed_is_drawn_once_for_all_choices(canvases):
    seeds = [canvas.params.seed for canvas in canvases.choices(body(n=3, max_tokens=4), [[1], [2]])]
    assert seeds == [seeds[0], seeds[0] + 1, seeds[0] + 2] * 2


def test_a_requested_seed_is_kept_even_if_it_is_zero():
    assert seed_or_random(0) == 0
    assert seed_or_random(None) != seed_or_random(None)


def test_the_default_length_is_the_room_that_is_left(canvases):
    assert canvases.generation_length(body(), 60) == 4
    assert canvases.generation_length(body(), 40, 14) == 10
    assert canvases.generation_length(body(max_tokens=2), 60) == 2


@pytest.mark.parametrize(
    ("fields", "prompt_length", "field", "message"),
    [
        ({}, 64, "prompt", "the prompt has 64 tokens; max_model_len is 64"),
        ({"gen_length": 5}, 60, "gen_length", "the prompt has 60 tokens, and gen_length is 5"),
    ],
)
def test_too_little_room_is_refused_with_both_numbers(canvases, fields, prompt_length, field, message):
    with pytest.raises(APIError, match=message) as refused:
        canvases.generation_length(body(**fields), prompt_length)
    assert (refused.value.param, refused.value.code) == (field, "context_length_exceeded")


def test_an_infilling_canvas_has_its_segments_and_its_gaps(canvases, tiny):
    request = DenoiseRequest(canvas=[[1, 2], {"mask": 3}], include_predictions=True)
    canvas = canvases.infilling(request, [[1, 2], MaskGap(mask=3)])
    assert canvas.response == [1, 2, *[tiny.special_tokens.mask_id] * 3]
    assert canvas.reporting.include_predictions
    with pytest.raises(APIError, match="canvas has 65 positions"):
        canvases.infilling(request, [[1], MaskGap(mask=64)])
