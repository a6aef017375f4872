from tests.training.conftest import llada_train, succeed, write_jsonl


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
