import pytest

from llada_core.sampling.text_end import TextEnd
from llada_core.text.final_text import FinalText

MASK, EOS = 0, 1


def text_end(stop_text=None):
    return TextEnd(mask_id=MASK, end_ids={EOS}, stop_text=stop_text)


def test_the_text_is_final_up_to_the_first_mask():
    end = text_end()
    end.advance([5, 6, MASK, 7], is_over=False)
    assert (end.final_length, end.text_length, end.finish_reason) == (2, 2, None)
    end.advance([5, 6, 8, 7], is_over=True)
    assert (end.final_length, end.text_length, end.finish_reason) == (4, 4, "length")


def test_an_end_token_ends_the_text_only_once_no_mask_is_left_of_it():
    end = text_end()
    end.advance([5, MASK, EOS, 9], is_over=False)
    assert (end.final_length, end.finish_reason) == (1, None)
    end.advance([5, 6, EOS, 9], is_over=False)
    assert (end.final_length, end.text_length, end.finish_reason) == (2, 2, "stop")


def test_an_empty_response_that_is_over_ends_by_length():
    end = text_end()
    end.advance([], is_over=True)
    assert (end.text_length, end.finish_reason) == (0, "length")


@pytest.mark.parametrize("split", [1, 2, 3])
def test_a_stop_string_ends_the_text_before_it_however_its_tokens_arrive(demo_tokenizer, split):
    ids = demo_tokenizer.encode_plain("one two three")
    end = text_end(FinalText(demo_tokenizer, ["two"]))
    for length in range(split, len(ids) + split, split):
        end.advance([*ids[:length], *[MASK] * 3], is_over=False)
        if end.finish_reason:
            break
    assert end.finish_reason == "stop"
    assert demo_tokenizer.decode(ids[: end.text_length]).strip() == "one"
    # The tokens that completed the stop string are final, but not part of the text.
    assert end.final_length > end.text_length
