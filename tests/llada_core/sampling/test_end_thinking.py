import numpy as np
import pytest

from llada_core import GenerationParams, InvalidParameterError
from llada_core.sampling.end_thinking import next_boost
from llada_core.sampling.params import EndThinking
from llada_core.sampling.prepare import Vocabulary, prepare_response

MASK = 99
END = EndThinking((7, 7, 8), boost=100.0, power=2.0)


@pytest.mark.parametrize(
    ("response", "position", "token_id"),
    [
        ([MASK, MASK, MASK, MASK, MASK], 0, 7),
        ([1, 7, MASK, MASK, MASK], 2, 7),
        # The longest beginning that ends right before the mask.
        ([1, 7, 7, MASK, MASK], 3, 8),
        ([7, 7, 7, MASK, MASK], 3, 8),
        ([7, 7, 1, MASK, MASK], 3, 7),
        ([7, MASK, 7, MASK, MASK], 3, 7),
        # Too short to hold the sequence.
        ([7, MASK], 1, 7),
    ],
)
def test_the_next_token_of_the_sequence_is_boosted_by_the_share_of_the_response(response, position, token_id):
    boost = next_boost(END, np.array(response), position)
    assert boost == (position, token_id, pytest.approx(100 * ((position + 1) / len(response)) ** 2))


@pytest.mark.parametrize("response", [[7, 7, 8, MASK], [MASK, 7, 7, 8], [7, 7, 7, 8, MASK]])
def test_nothing_is_boosted_once_the_sequence_is_there(response):
    assert next_boost(END, np.array(response), response.index(MASK)) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_ids": ()}, "token_ids is \\(\\); it must have from 1 to 64"),
        ({"token_ids": (1,) * 65}, r"token_ids is \(1, 1, .*\); it must have from 1 to 64"),
        ({"token_ids": (1,), "boost": float("inf")}, "boost is inf; it must be from 0"),
        ({"token_ids": (1,), "power": -1.0}, "power is -1.0; it must be from 0"),
    ],
    ids=str,
)
def test_numbers_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(InvalidParameterError, match=f"end_thinking: {message}") as refused:
        EndThinking(**settings)
    assert refused.value.field == "end_thinking"


def test_a_model_whose_sampler_does_not_know_it_refuses_it(tiny):
    params = GenerationParams(end_thinking=EndThinking((5,)))
    with pytest.raises(InvalidParameterError, match=r"end_thinking is .*absent: the sampler of LLaDA does not know it"):
        prepare_response([1], params, Vocabulary.of(tiny))
