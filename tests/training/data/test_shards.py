import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.training.damage import DAMAGES
from tests.training.data.shards_of import EOS, TEXTS, shards_of, write
from training.data.samples import Dialogues
from training.data.shards import tokenize
from training.data.sources import find_sources
from training.errors import DataError
from training.stages.pretrain import DocumentEncoder
from training.stages.sft import DialogueEncoder


@pytest.mark.parametrize(("overlong", "num_samples"), [("drop", 0), ("truncate", 1)])
def test_dialogues_that_are_too_long_are_counted(tmp_path, tokenizer, overlong, num_samples):
    row = {"prompt": "one", "completion": "two " * 50}
    encoder = DialogueEncoder(tokenizer, eos_id=EOS, max_length=40, overlong=overlong)
    (shard,) = shards_of(tmp_path, encoder, write(tmp_path / "d.jsonl", [row]))
    assert (shard.notes.num_dropped, shard.notes.num_truncated) == (1 - num_samples, num_samples)
    assert [len(Dialogues([shard])[i].tokens) for i in range(num_samples)] == [40] * num_samples
    assert len(shard.ends) == num_samples


def test_a_shard_notes_what_is_not_trained(tmp_path, tokenizer):
    rows = [{"prompt": "one", "completion": "two", "images": ["x"]}, {"text": "three", "answer": "four"}]
    (dialogues,) = shards_of(
        tmp_path,
        DialogueEncoder(tokenizer, eos_id=EOS, max_length=40, overlong="drop"),
        write(tmp_path / "a.jsonl", rows[:1]),
    )
    (documents,) = shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), write(tmp_path / "b.jsonl", rows[1:]))
    assert (dialogues.notes.left_out, documents.notes.left_out) == ({"images": 1}, {"answer": 1})


def test_a_file_is_tokenised_once(tmp_path, tokenizer):
    file = write(tmp_path / "0.jsonl", [{"text": text} for text in TEXTS])
    seen = []
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    for _ in range(2):
        shards_of(tmp_path, encoder, file, on_progress=lambda *progress: seen.append(progress))
    assert seen == [("0.jsonl", 4, 1.0)]


def test_a_file_is_known_by_its_content_wherever_it_lies(tmp_path, tokenizer):
    seen, encoder = [], DocumentEncoder(tokenizer, eos_id=EOS)
    for name, text in (("one", "same"), ("two", "same"), ("three", "else")):
        (tmp_path / name).mkdir()
        file = write(tmp_path / name / "0.jsonl", [{"text": text}])
        os.utime(file, ns=(1, 1))
        shards_of(tmp_path, encoder, file, on_progress=lambda *progress, name=name: seen.append(name))
    assert seen == ["one", "three"]


def test_two_runs_that_share_a_folder_do_not_tokenise_the_same_data_twice(tmp_path, tokenizer):
    file = write(tmp_path / "0.jsonl", [{"text": text} for text in TEXTS])
    running, seen = threading.Barrier(2, timeout=30), []

    def run():
        running.wait()
        return shards_of(
            tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), file, on_progress=lambda *progress: seen.append(progress)
        )

    with ThreadPoolExecutor(2) as runs:
        first, second = (future.result() for future in [runs.submit(run), runs.submit(run)])
    assert len(seen) == 1
    assert first[0].tokens.tolist() == second[0].tokens.tolist()


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
    (folder,) = (tmp_path / "shards").glob("[!.]*")
    folder.rename(folder.with_name(f"incomplete-{folder.name}"))
    assert shards_of(tmp_path, encoder, file)[0].tokens.tolist() == shard.tokens.tolist()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["tokens.bin", "ends.npy", "prompt_lengths.npy", "records.npy", "notes.json"])
def test_a_damaged_shard_is_made_again(tmp_path, tokenizer, name, damage):
    file, encoder = (
        write(tmp_path / "0.jsonl", [{"text": text} for text in TEXTS]),
        DocumentEncoder(tokenizer, eos_id=EOS),
    )
    (shard,) = shards_of(tmp_path, encoder, file)
    content = (shard.folder / name).read_bytes()
    (shard.folder / name).write_bytes(damage(content))
    shards_of(tmp_path, encoder, file)
    assert (shard.folder / name).read_bytes() == content


def test_special_tokens_written_in_text_stay_text(tmp_path, tokenizer):
    file = write(tmp_path / "0.jsonl", [{"text": "<|mdm_mask|><|endoftext|>"}])
    (shard,) = shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), file)
    special = {tokenizer.token_to_id(token) for token in ("<|mdm_mask|>", "<|endoftext|>")}
    assert not special & set(shard.tokens[:-1].tolist())


def test_bad_lines_are_counted_over_all_files_even_if_tokenised_before(tmp_path, tokenizer):
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    for name in ("0", "1"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "x"}\n{\n')
    sources = find_sources([str(tmp_path / "*.jsonl")])
    shards = tokenize(sources, encoder, tmp_path / "shards", max_bad_lines=2)
    assert [shard.notes.num_bad for shard in shards] == [1, 1]
    assert "1.jsonl" not in shards[0].notes.bad_lines and "0.jsonl" not in shards[1].notes.bad_lines
    with pytest.raises(DataError, match="2 in all; --max-bad-lines is 1"):
        tokenize(sources, encoder, tmp_path / "shards", max_bad_lines=1)


def test_a_change_anywhere_in_the_data_changes_its_digest(tmp_path, tokenizer):
    encoder = DocumentEncoder(tokenizer, eos_id=EOS)
    rows = [{"text": "one"}] * 5000
    (first,) = shards_of(tmp_path, encoder, write(tmp_path / "0.jsonl", rows))
    (same,) = shards_of(tmp_path, encoder, write(tmp_path / "1.jsonl", rows))
    rows[1234] = {"text": "two"}
    (other,) = shards_of(tmp_path, encoder, write(tmp_path / "2.jsonl", rows))
    assert first.notes.digest == same.notes.digest != other.notes.digest


def test_a_bad_line_leaves_no_shard(tmp_path, tokenizer):
    (tmp_path / "0.jsonl").write_text('{"text": "x"}\n{\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        shards_of(tmp_path, DocumentEncoder(tokenizer, eos_id=EOS), str(tmp_path / "0.jsonl"))
    assert not list((tmp_path / "shards").glob("[!.]*"))
