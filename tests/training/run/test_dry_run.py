import re

import pytest

from tests.training.conftest import llada_train, succeed, write_jsonl
from training.commands.tokenizer import train_tokenizer


def test_a_dry_run_shows_batch_schedule_and_memory_and_writes_nothing(workspace, tmp_path):
    printed = succeed(*workspace.sft(tmp_path / "out", "--activation-checkpointing"), "--dry-run")
    assert "░" in printed and "┃" in printed
    assert "⟦start_header_id⟧user⟦end_header_id⟧⏎⏎After" in printed
    assert "12 steps of 4 samples, 0.48 epochs of 100 samples" in printed
    assert "step 1: 2.50e-04" in printed and "step 12: 1.00e-04" in printed
    assert "parameters" in printed and "← this run" in printed
    assert not (tmp_path / "out").exists()


def test_a_dry_run_needs_no_weights(workspace, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "generation_config.json"):
        (folder / name).write_bytes((workspace.folder / "base" / name).read_bytes())
    printed = succeed(*workspace.sft(tmp_path / "out", "--model-name-or-path", folder, "--lora-r", 4), "--dry-run")
    assert "of them trained" in printed


def test_under_fsdp_each_device_is_estimated(workspace, tmp_path):
    printed = succeed(*workspace.sft(tmp_path / "out", "--strategy", "fsdp", "--batch-size", 8), "--dry-run")
    assert [line.split()[:2] for line in printed.splitlines() if "fsdp" in line] == [
        ["2", "fsdp"], ["4", "fsdp"], ["8", "fsdp"],
    ]  # fmt: skip


def test_a_dry_run_leaves_a_hub_models_weights_on_the_hub(workspace, tmp_path, monkeypatch):
    asked = []

    def download(name, *, revision, allow_patterns):
        asked.append((name, [pattern for pattern in allow_patterns if "safetensors" in pattern]))
        return str(workspace.folder / "base")

    monkeypatch.setattr("llada_core.checkpoint.folder.snapshot_download", download)  # no hub here
    succeed(*workspace.sft(tmp_path / "out", "--model-name-or-path", "owner/name"), "--dry-run")
    assert asked == [("owner/name", [])]


def test_a_batch_that_cannot_be_shared_fails_in_the_dry_run_too(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = llada_train(*workspace.sft(tmp_path / "out", "--batch-size", 3), "--dry-run")
    assert "a batch has 3 samples; it must be a multiple of the 2 processes" in result.stderr


def test_only_one_of_several_processes_prints(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not succeed(*workspace.sft(tmp_path / "out"), "--dry-run")


def test_a_special_token_that_was_typed_is_shown_apart_from_a_real_one(workspace, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", [{"prompt": "Hi", "completion": "a <|eot_id|> b"}])
    options = workspace.sft(tmp_path / "out", "--dry-run")
    options[options.index(workspace.folder / "sft.jsonl")] = data
    printed = succeed(*options)
    assert "in MB" in printed and " 0.00   0.00" not in printed.split("← this run")[0].splitlines()[-1]
    assert "a <|eot_id|> b⟦eot_id⟧" in printed


def test_a_dry_run_reads_the_beginning_of_large_data_and_estimates_the_rest(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("training.run.dry_run.EXCERPT", 20_000)
    monkeypatch.setattr("training.data.sources.digest_of", lambda file: pytest.fail("read whole"))
    rows = [{"prompt": f"After {n}?", "completion": f"{n + 1}."} for n in range(1000, 6000)]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    # Nobody gets as far as this line.
    data.write_text(data.read_text() + "no JSON\n")
    options = [*workspace.sft(tmp_path / "out", "--num-epochs", 2, "--dry-run")]
    options[options.index(workspace.folder / "sft.jsonl")] = data
    at = options.index("--max-steps")
    printed = succeed(*options[:at], *options[at + 2 :])
    assert re.search(r"data.jsonl: completion format, [34]\d\d samples.*; its first [6-9]\.\d\d% only", printed)
    # The buffer's 64 kB are counted as read, which is a third of this small file.
    steps, epochs, samples = re.search(
        r"([\d,]+) steps of 4 samples, about ([\d.]+) epochs of about ([\d,]+)", printed
    ).groups()
    assert float(epochs) == pytest.approx(2.0, abs=0.01)
    assert int(steps.replace(",", "")) == pytest.approx(int(samples.replace(",", "")) / 2, abs=1)
    assert int(samples.replace(",", "")) == pytest.approx(5000, rel=0.05)


def test_data_that_was_read_whole_is_not_called_a_beginning(workspace, tmp_path, monkeypatch):
    rows = [{"prompt": f"After {n}?", "completion": f"{n + 1}."} for n in range(20)]
    data = write_jsonl(tmp_path / "data.jsonl", rows)
    data.write_text(data.read_text() + "\n" * 500)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows)
    monkeypatch.setattr("training.data.sources._hub_revision", lambda name: "1" * 40)  # no hub here
    for path in (data, "owner/name"):
        options = workspace.sft(tmp_path / "out", "--dry-run")
        options[options.index(workspace.folder / "sft.jsonl")] = path
        printed = succeed(*options)
        assert "2.40 epochs of 20 samples" in printed and "only" not in printed and "about 2" not in printed


def test_a_source_without_a_known_size_has_no_estimate(workspace, tmp_path, monkeypatch):
    rows = ({"prompt": f"After {n}?", "completion": f"{n + 1}."} for n in range(10**9))
    monkeypatch.setattr("training.run.dry_run.EXCERPT", 20_000)
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows)
    monkeypatch.setattr("training.data.sources._hub_revision", lambda name: "1" * 40)  # no hub here
    options = workspace.sft(tmp_path / "out", "--dry-run")
    options[options.index(workspace.folder / "sft.jsonl")] = "owner/name"
    printed = succeed(*options)
    assert "owner/name: completion format" in printed
    assert "its first records only" in printed
    assert "12 steps of 4 samples, an unknown share of the data" in printed


def test_a_pipelines_dry_run_trains_its_tokenizer_on_the_beginning_too(config, workspace, monkeypatch):
    read = []
    monkeypatch.setattr("training.commands.pipeline.EXCERPT", 1000)
    monkeypatch.setattr(
        "training.commands.tokenizer.train_tokenizer",
        lambda texts, **options: train_tokenizer((read.append(text) or text for text in texts), **options),
    )
    succeed("pipeline", "--config", config(), "--dry-run")
    assert 10 < len(read) < 60
