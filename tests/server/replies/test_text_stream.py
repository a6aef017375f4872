"""A request's text from its steps, without a server."""

import pytest

from llada_core.sampling.events import Change, DenoisingStep
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from server.replies.text_stream import TextStream


@pytest.fixture
def stream_of(demo, demo_tokenizer):
    def stream_of(length: int, tokenizer=demo_tokenizer, **params: object) -> TextStream:
        canvas = prepare_response([5], GenerationParams(gen_length=length, **params), Vocabulary.of(demo, tokenizer))
        return TextStream(canvas, tokenizer)

    return stream_of


def step(number: int, tokens: dict[int, int], *, final_length: int, finish_reason: str | None = None) -> DenoisingStep:
    changes = tuple(Change("commit", number, position, token_id, 0.5) for position, token_id in tokens.items())
    return DenoisingStep(
        number, 0, changes, masked=0, final_length=final_length, text_length=final_length, finish_reason=finish_reason
    )


def test_text_is_final_up_to_the_first_mask_and_the_deltas_add_up_to_it(stream_of, demo_tokenizer):
    first, second, third = demo_tokenizer.encode_plain("Once upon a")
    stream = stream_of(3)
    deltas = [
        stream.apply(step(0, {1: second}, final_length=0)),
        stream.apply(step(1, {0: first}, final_length=2)),
        stream.apply(step(2, {2: third}, final_length=3, finish_reason="length")),
    ]
    assert deltas == ["", "Once upon", " a"]
    assert stream.text == "Once upon a"
    assert (stream.finish_reason, stream.denoising_steps) == ("length", 3)


def test_a_draft_shows_the_whole_response_with_a_box_for_every_mask(stream_of, demo_tokenizer):
    first, second, third = demo_tokenizer.encode_plain("Once upon a")
    stream = stream_of(4)
    assert stream.draft() == "▒▒▒▒"
    stream.apply(step(0, {0: first, 2: third}, final_length=1))
    assert stream.draft() == "Once▒ a▒"
    stream.apply(step(1, {1: second}, final_length=3, finish_reason="stop"))
    assert stream.draft() == "Once upon a"


def test_half_a_character_is_held_back_until_it_is_whole_or_nothing_follows(stream_of, demo_tokenizer):
    ids = demo_tokenizer.encode_plain("é")
    assert len(ids) == 2
    stream = stream_of(2)
    assert stream.apply(step(0, {0: ids[0]}, final_length=1)) == ""
    assert stream.apply(step(1, {1: ids[1]}, final_length=2, finish_reason="length")) == "é"
    broken = stream_of(1)
    assert broken.apply(step(0, {0: ids[0]}, final_length=1, finish_reason="length")) == "\ufffd"


def test_tokens_are_taken_once_with_their_commits_and_offsets(stream_of, demo_tokenizer):
    first, second, third = demo_tokenizer.encode_plain("Once upon a")
    stream = stream_of(3)
    stream.apply(step(0, {0: first, 1: second}, final_length=2))
    taken = stream.take_tokens(text_offset=10)
    assert [(token.token_id, token.offset) for token in taken] == [(first, 10), (second, 14)]
    stream.apply(step(1, {2: third}, final_length=3, finish_reason="length"))
    (last,) = stream.take_tokens(text_offset=10)
    assert (last.token_id, last.offset, last.change.step) == (third, 19, 1)
    assert stream.take_tokens() == []


def test_a_possible_stop_string_is_held_back_until_it_is_none(stream_of, demo_tokenizer):
    first, second, third = demo_tokenizer.encode_plain("Once upon a")
    stream = stream_of(3, stop=(" upon b",))
    assert stream.apply(step(0, {0: first, 1: second}, final_length=2)) == "Once"
    assert stream.apply(step(1, {2: third}, final_length=3, finish_reason="length")) == " upon a"


def test_without_a_tokenizer_there_are_ids_but_no_text(stream_of):
    stream = stream_of(2, tokenizer=None)
    assert stream.apply(step(0, {0: 7}, final_length=1)) == stream.text == stream.draft() == ""
    assert stream.text_ids == [7]


def test_guidance_doubles_the_forward_passes(stream_of):
    stream = stream_of(2, cfg_scale=1.0)
    stream.apply(step(0, {0: 7}, final_length=1))
    assert (stream.denoising_steps, stream.forward_passes) == (1, 2)


def test_the_stop_reason_is_the_string_or_the_id_that_ended_the_text(stream_of, demo_tokenizer):
    words = demo_tokenizer.encode_plain("one two three")
    eos_id = demo_tokenizer.token_to_id("<|endoftext|>")

    def reason(ids: list[int], **params: object) -> str | int | None:
        stream = stream_of(len(ids), **params)
        end = next((i for i, token_id in enumerate(ids) if token_id in (eos_id, words[-1])), len(ids))
        finish_reason = "stop" if end < len(ids) else "length"
        stream.apply(step(0, dict(enumerate(ids)), final_length=end, finish_reason=finish_reason))
        return stream.stop_reason

    assert reason([*words[:2], eos_id]) is None
    assert reason(words[:2]) is None
    assert reason([*words[:2], words[-1], 9], stop_token_ids=frozenset({words[-1]})) == words[-1]
    assert reason([*words[:2], eos_id], stop=("two", " t")) == " t"
