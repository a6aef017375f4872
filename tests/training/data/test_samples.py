import json
import os

import pytest

from llada_core.text.tokenizer import Message, Tokenizer
from training.commands.tokenizer import train_tokenizer
from training.data.samples import Dialogues, PackedDocuments
from training.data.shards import tokenize
from training.data.sources import find_sources
from training.errors import DataError
from training.stages.pretrain import DocumentEncoder
from training.stages.sft import DialogueEncoder

EOS = 1
TEXTS = ["one two", "three", "four one two three", "two two two two"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["one two three four"] * 3, vocab_size=300, output_dir=folder)
    return Tokenizer.from_folder(folder)


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def shards_of(tmp_path, encoder, *files, **options):
    return tokenize(find_sources(files), encoder, tmp_path / "shards", max_bad_lines=0, **options)


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


def test_documents_that_do_not_see_one_another_are_spans_of_a_sample(tmp_path, tokenizer):
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


def test_of_a_text_among_dialogues_every_token_is_a_target(tmp_path, tokenizer):
    files = [
        write(tmp_path / "dialogues.jsonl", [{"prompt": "one", "completion": "two"}]),
        write(tmp_path / "texts.jsonl", [{"text": "three four"}]),
    ]
    encoder = DialogueEncoder(tokenizer, eos_id=EOS, max_length=40, overlong="drop")
    sample = Dialogues(shards_of(tmp_path, encoder, *files))[1]
    assert sample.prompt_length == 0
    assert sample.tokens.tolist() == [*tokenizer.encode("three four"), EOS]


@pytest.mark.parametrize(("overlong", "num_samples"), [("drop", 0), ("truncate", 1)])
def test_dialogues_that_are_too_long_are_counted(tmp_path, tokenizer, overlong, num_samples):
    row = {"prompt": "one", "completion": "two " * 50}
    encoder = DialogueEncoder(tokenizer, eos_id=EOS, max_length=40, overlong=overlong)
    (shard,) = shards_of(tmp_path, encoder, write(tmp_path / "d.jsonl", [row]))
    assert (shard.num_dropped, shard.num_truncated) == (1 - num_samples, num_samples)
    assert [len(Dialogues([shard])[i].tokens) for i in range(num_samples)] == [40] * num_samples
    assert len(shard.ends) == num_samples


def test_text_is_tokenised_once(tmp_path, tokenizer):
    file = write(tmp_path / "0.jsonl", [{"text": text} for text in TEXTS])
    seen = []
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    for _ in range(2):
        shards_of(tmp_path, encoder, file, on_progress=lambda *progress: seen.append(progress))
    assert seen == [("0.jsonl", 4, 1.0)]


def test_a_file_that_changed_is_tokenised_again(tmp_path, tokenizer):
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    file = write(tmp_path / "0.jsonl", [{"text": "one"}])
    before = shards_of(tmp_path, encoder, file)
    write(tmp_path / "0.jsonl", [{"text": "two two"}])
    os.utime(file, ns=(1, 1))
    after = shards_of(tmp_path, encoder, file)
    assert before[0].tokens.tolist() != after[0].tokens.tolist() == [*tokenizer.encode_plain("two two"), EOS]


def test_a_shard_cut_short_by_a_kill_is_made_again(tmp_path, tokenizer):
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    file = write(tmp_path / "0.jsonl", [{"text": "one"}])
    (shard,) = shards_of(tmp_path, encoder, file)
    (folder,) = (tmp_path / "shards").iterdir()
    folder.rename(folder.with_name(f"incomplete-{folder.name}"))
    assert shards_of(tmp_path, encoder, file)[0].tokens.tolist() == shard.tokens.tolist()


def test_an_empty_file_makes_no_sample_and_no_error(tmp_path, tokenizer):
    files = [write(tmp_path / "0.jsonl", []), write(tmp_path / "1.jsonl", [{"text": "one two three"}])]
    samples = PackedDocuments(shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), *files), max_length=4)
    assert len(samples) == 1


def test_special_tokens_written_in_text_stay_text(tmp_path, tokenizer):
    file = write(tmp_path / "0.jsonl", [{"text": "<|mdm_mask|><|endoftext|>"}])
    (shard,) = shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), file)
    special = {tokenizer.token_to_id(token) for token in ("<|mdm_mask|>", "<|endoftext|>")}
    assert not special & set(shard.tokens[:-1].tolist())


def test_bad_lines_are_counted_over_all_files_also_those_tokenised_before(tmp_path, tokenizer):
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    for name in ("0", "1"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n{\n')
    sources = find_sources([str(tmp_path / "*.jsonl")])
    shards = tokenize(sources, encoder, tmp_path / "shards", max_bad_lines=2)
    assert [shard.num_bad for shard in shards] == [1, 1]
    assert "1.jsonl" not in shards[0].bad_lines and "0.jsonl" not in shards[1].bad_lines
    with pytest.raises(DataError, match="2 in all; --max-bad-lines is 1"):
        tokenize(sources, encoder, tmp_path / "shards", max_bad_lines=1)


def test_data_that_changed_anywhere_has_another_digest(tmp_path, tokenizer):
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    rows = [{"text": "one"}] * 5000
    (first,) = shards_of(tmp_path, encoder, write(tmp_path / "0.jsonl", rows))
    (same,) = shards_of(tmp_path, encoder, write(tmp_path / "1.jsonl", rows))
    rows[1234] = {"text": "two"}
    (other,) = shards_of(tmp_path, encoder, write(tmp_path / "2.jsonl", rows))
    assert first.digest == same.digest != other.digest


def test_a_bad_line_leaves_no_shard(tmp_path, tokenizer):
    (tmp_path / "0.jsonl").write_text('{"text": "x"}\n{\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), str(tmp_path / "0.jsonl"))
    assert not list((tmp_path / "shards").iterdir())
