"""Final text against the plain definition: decode everything, cut before the stop string that ends first."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_core.text.final_text import FinalText


def cut(text, stop):
    found = [(text.find(word) + len(word), text.find(word)) for word in stop if word in text]
    return text[: min(found)[1]] if found else text


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(alphabet="ab é▒🙂", max_size=30),
    stop=st.lists(st.text(alphabet="ab é▒", min_size=1, max_size=4), max_size=3),
    borders=st.lists(st.integers(1, 5), max_size=20),
)
def test_however_it_comes_the_text_is_cut_before_the_first_stop_string(demo_tokenizer, text, stop, borders):
    ids = demo_tokenizer.encode_plain(text)
    final = FinalText(demo_tokenizer, stop)
    parts, start = [], 0
    for size in [*borders, len(ids)]:
        parts.append(final.push(ids[start : start + size]))
        # Never past a possible stop string: what is out is a prefix of the result.
        assert cut(text, stop).startswith("".join(parts))
        start += size
    parts.append(final.flush())
    assert "".join(parts) == final.text == cut(text, stop)
    assert final.is_stopped == any(word in text for word in stop)


def test_tokens_are_counted_up_to_the_stop_string(demo_tokenizer):
    ids = [token for word in ("one", " two", " three") for token in demo_tokenizer.encode_plain(word)]
    final = FinalText(demo_tokenizer, [" three"])
    final.push(ids)
    assert (final.text, final.is_stopped) == ("one two", True)
    assert demo_tokenizer.decode(ids[: final.num_tokens]) == "one two"


def test_tokens_are_counted_where_they_begin(demo_tokenizer):
    # A special token begins where the next one does.
    eos = demo_tokenizer.token_to_id("<|endoftext|>")
    ids = [*(demo_tokenizer.encode_plain(letter)[0] for letter in "abc"), eos, demo_tokenizer.encode_plain(" there")[0]]
    final = FinalText(demo_tokenizer)
    assert final.num_tokens_in(0, 9) == 0
    final.push(ids)
    assert final.text == "abc there"
    counts = [final.num_tokens_in(*part) for part in ((0, 9), (0, 3), (1, 4), (3, 4), (4, 9), (3, 99), (2, 2))]
    assert counts == [5, 3, 4, 2, 0, 2, 0]


def test_a_stop_string_within_a_token_cuts_its_text_and_not_its_count(demo_tokenizer):
    (token,) = demo_tokenizer.encode_plain(" there")
    final = FinalText(demo_tokenizer, ["ere"])
    assert final.push([token]) == " th"
    assert final.num_tokens == 0


@pytest.mark.parametrize("stop", [(), ("x",)])
def test_half_a_character_waits_and_is_replaced_at_the_end(demo_tokenizer, stop):
    ids = demo_tokenizer.encode_plain("🙂")
    assert len(ids) > 1
    final = FinalText(demo_tokenizer, stop)
    assert final.push(ids[:-1]) == ""
    assert "\ufffd" in final.flush()


def test_a_special_token_is_placed_where_it_stands_and_waits_for_nothing(demo_tokenizer):
    letters = [demo_tokenizer.encode_plain(letter)[0] for letter in "abc"]
    final = FinalText(demo_tokenizer)
    final.push([5, *letters[:1], 5, 1, *letters[1:]])
    assert final.text == "abc"
    assert [final.start_of(index) for index in range(6)] == [0, 0, 1, 1, 1, 2]
