from itertools import islice

import numpy as np
import pytest
import torch

from llada_core.tokenizer import Message, Tokenizer
from training.data.samples import Sample, batches, pack_documents, tokenize_dialogues
from training.tokenizer import train_tokenizer

EOS = 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["one two three four"] * 3, vocab_size=300, output_dir=folder)
    return Tokenizer.from_folder(folder)


def test_packing_keeps_the_document_ends(tokenizer):
    texts = ["one two", "three", "four one two three"]
    samples = pack_documents(texts, tokenizer, eos_id=EOS, max_length=6)
    stream = [token for sample in samples for token in sample.tokens.tolist()]
    expected = [token for text in texts for token in (*tokenizer.encode_plain(text), EOS)]
    assert stream == expected[: len(stream)]
    assert len(expected) - len(stream) < 6


def test_every_assistant_turn_is_a_target_with_its_history_as_prompt(tokenizer):
    dialogue = [
        Message("user", "one"),
        Message("assistant", "two"),
        Message("user", "three"),
        Message("assistant", "four"),
    ]
    samples, too_long = tokenize_dialogues([dialogue], tokenizer, eos_id=EOS, max_length=200)
    assert too_long == 0
    for sample, turn in zip(samples, (1, 3), strict=True):
        answer = [*tokenizer.encode_plain(dialogue[turn].content), tokenizer.token_to_id("<|eot_id|>"), EOS]
        assert sample.tokens[: sample.prompt_length].tolist() == tokenizer.encode_chat(dialogue[:turn])
        assert sample.tokens[sample.prompt_length :].tolist() == answer


def test_dialogues_that_are_too_long_are_counted(tokenizer):
    dialogue = [Message("user", "one " * 50), Message("assistant", "two")]
    assert tokenize_dialogues([dialogue], tokenizer, eos_id=EOS, max_length=40) == ([], 1)


def samples_of(*lengths):
    return [Sample(np.full(length, 5 + index, dtype=np.int32), 1) for index, length in enumerate(lengths)]


def stream(samples, count, **options):
    options = {"batch_size": 4, "seed": 0, "eos_id": EOS, "pad_to": None, **options}
    return list(islice(batches(samples, **options), count))


def test_an_epoch_visits_every_sample_once_and_the_next_in_another_order():
    samples = samples_of(*range(2, 42))
    seen = [index for batch in stream(samples, 20) for index in batch.samples_B.tolist()]
    first, second = seen[:40], seen[40:]
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second


def test_rows_are_padded_with_eos_to_the_longest_of_the_batch():
    for batch in stream(samples_of(3, 9, 5, 7), 1):
        assert batch.tokens_BL.shape == (4, 9)
        for row, sample in zip(batch.tokens_BL, batch.samples_B.tolist(), strict=True):
            assert row.tolist() == [5 + sample] * (3, 9, 5, 7)[sample] + [EOS] * (9 - (3, 9, 5, 7)[sample])


def test_batches_hold_rows_of_similar_length():
    for batch in stream(samples_of(*([4] * 40 + [30] * 40)), 20):
        assert len({4, 30} & {len(row[row != EOS]) for row in batch.tokens_BL}) == 1


def test_a_stream_taken_up_in_the_middle_is_the_same_stream():
    samples = samples_of(*range(2, 42))
    whole = stream(samples, 25, pad_to=64)
    resumed = stream(samples, 12, pad_to=64, first_step=13)
    for expected, found in zip(whole[13:], resumed, strict=True):
        assert torch.equal(expected.tokens_BL, found.tokens_BL)
        assert expected.epoch == found.epoch


def test_one_batch_in_three_is_padded_further():
    lengths = [batch.tokens_BL.shape[1] for batch in stream(samples_of(*[5] * 8), 600, pad_to=100)]
    assert max(lengths) <= 100
    assert 0.25 < sum(length > 5 for length in lengths) / 600 < 0.4


def test_fewer_samples_than_a_batch_still_make_one():
    assert stream(samples_of(3, 4), 2)[1].epoch == 1
