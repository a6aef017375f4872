import numpy as np
import pytest

from llada_core.text.tokenizer import Message
from tests.training.data.shards_of import EOS, TEXTS, shards_of, write
from tests.training.fake_samples import samples_of
from training.data.samples import Dialogues, Mixture, PackedDocuments, Subset, hold_out
from training.errors import DataError
from training.stages.pretrain import DocumentEncoder
from training.stages.sft import DialogueEncoder


def document_shards(tmp_path, tokenizer):
    """Two files, so that samples cross from one shard to the next."""
    files = [write(tmp_path / f"{i}.jsonl", [{"text": text} for text in TEXTS[2 * i : 2 * i + 2]]) for i in (0, 1)]
    return shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), *files)


def expected_stream(tokenizer):
    return [token for text in TEXTS for token in (*tokenizer.encode_plain(text), EOS)]


def test_packing_keeps_the_document_ends_across_files(tmp_path, tokenizer):
    samples = PackedDocuments(document_shards(tmp_path, tokenizer), max_length=6)
    stream = [token for index in range(len(samples)) for token in samples[index].tokens.tolist()]
    expected = expected_stream(tokenizer)
    assert stream == expected[: len(stream)]
    assert len(expected) - len(stream) < 6
    assert all(samples[index].spans == (6,) for index in range(len(samples)))


def test_documents_that_do_not_attend_to_one_another_are_spans_of_a_sample(tmp_path, tokenizer):
    samples = PackedDocuments(document_shards(tmp_path, tokenizer), max_length=7, attend_across_documents=False)
    stream = expected_stream(tokenizer)
    for index in range(len(samples)):
        sample = samples[index]
        assert sum(sample.spans) == 7
        ends, position = [], 0
        for span in sample.spans[:-1]:
            position += span
            ends.append(position)
        window = stream[index * 7 : index * 7 + 7]
        assert ends == [place + 1 for place, token in enumerate(window[:-1]) if token == EOS]


def test_every_assistant_turn_is_a_target_with_its_history_as_prompt(tmp_path, tokenizer):
    dialogue = [
        Message("system", "one"),
        Message("user", " one "),
        Message("assistant", "two"),
        Message("user", "three"),
        Message("assistant", "four"),
    ]
    row = {"messages": [{"role": message.role, "content": message.content} for message in dialogue]}
    encoder = DialogueEncoder(tokenizer, eos_id=EOS, max_length=200, overlong="drop")
    samples = Dialogues(shards_of(tmp_path, encoder, write(tmp_path / "d.jsonl", [row])))
    assert len(samples) == 2
    for index, turn in enumerate((2, 4)):
        sample = samples[index]
        answer = [*tokenizer.encode_plain(dialogue[turn].content), tokenizer.token_to_id("<|eot_id|>"), EOS]
        assert sample.tokens[: sample.prompt_length].tolist() == tokenizer.encode_chat(dialogue[:turn])
        assert sample.tokens[sample.prompt_length :].tolist() == answer
    assert samples.lengths.tolist() == [len(samples[i].tokens) for i in (0, 1)]


def test_every_token_of_a_text_among_dialogues_is_a_target(tmp_path, tokenizer):
    files = [
        write(tmp_path / "dialogues.jsonl", [{"prompt": "one", "completion": "two"}]),
        write(tmp_path / "texts.jsonl", [{"text": "three four"}]),
    ]
    encoder = DialogueEncoder(tokenizer, eos_id=EOS, max_length=40, overlong="drop")
    sample = Dialogues(shards_of(tmp_path, encoder, *files))[1]
    assert sample.prompt_length == 0
    assert sample.tokens.tolist() == [*tokenizer.encode("three four"), EOS]


def test_an_empty_file_makes_no_sample_and_no_error(tmp_path, tokenizer):
    files = [write(tmp_path / "0.jsonl", []), write(tmp_path / "1.jsonl", [{"text": "one two three"}])]
    samples = PackedDocuments(shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), *files), max_length=4)
    assert len(samples) == 1


def test_a_mixture_is_its_parts_one_after_the_other():
    parts = [samples_of(3, 4, prompt=2), samples_of(5, prompt=1)]
    for part, digest in zip(parts, ("a", "b"), strict=True):
        part.digest = digest
    mixture = Mixture(parts, (1, 3))
    assert mixture.lengths.tolist() == [3, 4, 5] and mixture.prompt_lengths.tolist() == [2, 2, 1]
    assert [len(mixture[index].tokens) for index in range(3)] == [3, 4, 5]
    assert mixture[2].tokens.tolist() == [5] * 5
    assert mixture.digest == "1: a, 3: b" != Mixture(parts, (1, 2)).digest


def dialogues(tmp_path, tokenizer, *numbers_of_turns):
    rows = [
        {"messages": [{"role": ("user", "assistant")[i % 2], "content": f"{row} {i}"} for i in range(2 * turns)]}
        for row, turns in enumerate(numbers_of_turns)
    ]
    encoder = DialogueEncoder(tokenizer, eos_id=EOS, max_length=200, overlong="drop")
    halves = len(rows) // 2
    files = [write(tmp_path / "0.jsonl", rows[:halves]), write(tmp_path / "1.jsonl", rows[halves:])]
    return Dialogues(shards_of(tmp_path, encoder, *files))


def test_the_turns_of_a_dialogue_are_one_group_in_every_file(tmp_path, tokenizer):
    assert dialogues(tmp_path, tokenizer, 2, 1, 3, 1).groups.tolist() == [0, 0, 1, 2, 2, 2, 3]


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2.0, 2), (0.5, 5), (0.26, 3)])
def test_so_many_records_are_held_out_whole_and_the_rest_is_trained(tmp_path, tokenizer, size, count):
    samples = dialogues(tmp_path, tokenizer, *[1, 2] * 5)
    training, validation = hold_out(samples, size, seed=0)
    assert len(set(validation.groups.tolist())) == count
    assert not set(training.groups.tolist()) & set(validation.groups.tolist())
    assert len(training) + len(validation) == len(samples)
    both = [
        sample.tokens.tolist() for part in (training, validation) for sample in map(part.__getitem__, range(len(part)))
    ]
    assert sorted(both) == sorted(samples[index].tokens.tolist() for index in range(len(samples)))
    assert training.lengths.tolist() == [len(training[index].tokens) for index in range(len(training))]


def test_what_is_held_out_depends_on_the_seed_and_on_nothing_else(tmp_path, tokenizer):
    samples = dialogues(tmp_path, tokenizer, *[1] * 20)
    digests = [hold_out(samples, 5, seed=seed)[1].digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_mixture_of_which_some_is_held_out_keeps_its_shares(tmp_path, tokenizer):
    parts = []
    for name, count in (("a", 20), ("b", 40)):
        (tmp_path / name).mkdir()
        parts.append(dialogues(tmp_path / name, tokenizer, *[1] * count))
    training, validation = hold_out(Mixture(parts, (1, 3)), 0.25, seed=0)
    assert isinstance(training, Mixture) and training.shares == (1, 3)
    assert sum(training.sizes) == 45 == len(training) and len(validation) == 15
    both = [_tokens(part[index]) for part in (training, validation) for index in range(len(part))]
    assert sorted(both) == sorted(_tokens(part[index]) for part in parts for index in range(len(part)))
    with pytest.raises(DataError, match="--val-size holds out all samples of a source that has a share"):
        hold_out(Mixture([Subset(parts[0], np.array([0])), Subset(parts[1], np.array([0]))], (1, 1)), 1, seed=0)


def _tokens(sample):
    return sample.tokens.tolist()


@pytest.mark.parametrize("size", [20, 21, 0.001, 0.999])
def test_a_division_that_leaves_one_side_empty_is_refused(tmp_path, tokenizer, size):
    with pytest.raises(DataError, match=r"--val-size .* of 20 records holds"):
        hold_out(dialogues(tmp_path, tokenizer, *[1] * 20), size, seed=0)
