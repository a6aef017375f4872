"""`llada-train` from text to a model that the server loads, and what it says to wrong input."""

import json
import shutil
import subprocess
import sys
from typing import get_args

import httpx
import pytest
import torch

from llada_core import load_model, load_tokenizer
from llada_core.sampling.params import METHODS
from llada_core.sampling.scores import REMASKING
from llada_core.text.tokenizer import Message, Tokenizer
from tests.live_server import LiveServer
from tests.training.conftest import CONFIG, ROOT, llada_train, records, succeed, write_jsonl
from training.options.fields import Method, Remasking


def test_text_becomes_a_model_that_the_server_serves(workspace, tmp_path):
    instruct = tmp_path / "instruct"
    output = succeed(*workspace.sft(instruct))
    assert f"llada-server --model {instruct}" in output
    assert load_model(instruct).dtype == torch.float32
    tokenizer = load_tokenizer(instruct)
    assert tokenizer is not None and tokenizer.encode_chat([Message("user", "Hi")])
    with LiveServer("--model", str(instruct), "--max-model-len", "64") as server:
        body = {"messages": [{"role": "user", "content": "After 5?"}], "max_tokens": 8}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["model"] == "instruct"
    assert answer["usage"]["denoising_steps"] >= 1


def test_options_may_be_written_with_underscores(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out", "--max_steps", 1, "--micro_batch_size", 2))


def test_a_run_leaves_metrics_a_picture_and_tensorboard_files(workspace, tmp_path):
    out = tmp_path / "out"
    printed = succeed(
        *workspace.sft(out), "--val-data-path", workspace.folder / "sft.jsonl", "--eval-samples", 8,
        "--eval-prompt", "After 7?", "--eval-gen-length", 8,
    )  # fmt: skip
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").iterdir())
    found = records(out)
    assert [record["step"] for record in found if "loss" in record] == list(range(1, 13))
    assert {"lr", "gradient_norm", "tokens_per_second", "loss_by_noise_level"} <= found[0].keys()
    assert [record["step"] for record in found if "val_loss" in record] == [4, 8, 12]
    assert printed.count("'After 7?' →") == 3


def test_the_best_checkpoint_by_validation_loss_is_kept_besides_the_last(workspace, tmp_path):
    out = tmp_path / "out"
    # A learning rate this high makes validation worse after the first steps.
    succeed(
        *workspace.sft(out, "--save-steps", 2, "--learning-rate", 0.3, "--warmup-steps", 0, "--keep-last", 2),
        "--val-data-path", workspace.folder / "sft.jsonl", "--eval-samples", 8,
    )  # fmt: skip
    measured = {record["step"]: record["val_loss"] for record in records(out) if "val_loss" in record}
    best = min(measured, key=measured.__getitem__)
    kept = {int(folder.name.removeprefix("step-")) for folder in (out / "checkpoints").iterdir()}
    assert kept == {best, 10, 12}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "bad.jsonl, line 2: not JSON"),
        ('{"txt": "x"}', 'line 2: needs a non-empty string "text"'),
        ("[1]", "line 2: is a list; it must be an object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(workspace, tmp_path, line, message):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(f'{{"text": "fine"}}\n{line}\n')
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--train-data-path", bad))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_bad_lines_within_the_limit_are_counted_and_shown(workspace, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "fine"}\n{\n[1]\n')
    options = ["--train-data-path", bad, "--max-steps", 1, "--max-bad-lines"]
    assert "2 bad lines left out" in succeed(*workspace.pretrain(tmp_path / "out", *options, 2))
    result = llada_train(*workspace.pretrain(tmp_path / "other", *options, 1))
    assert "(2 bad lines; --max-bad-lines allows 1)" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-steps", 0], "pretrain: max_steps is 0: Input should be greater than or equal to 1"),
        (["--num-epochs", 1], "give either max_steps or num_epochs"),
        (["--model-name-or-path", "x"], "give either model_name_or_path (a checkpoint) or model_config"),
        (["--lora-r", 4], "lora_r: adapters need a trained model"),
        (["--max-length", 500], "--max-length is 500; it must be at most the model's max_sequence_length, 96"),
        (["--train-data-path", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--train-data-path", "no-*.jsonl"], "no-*.jsonl: matches no file"),
        (["--device", "tpu9"], "--device is 'tpu9'"),
        (["--eval-steps", 3], "eval_steps is 3; it must be a multiple of save_steps (4)"),
        (["--eval-gen-length", 200, "--eval-prompt", "x"], "--eval-gen-length is 200; it must be at most"),
        (["--seed", -1], "seed is -1"),
        (["--output-dir", "/proc/out"], "--output-dir /proc/out: cannot be written"),
        (["--lora-alpha", 8], "lora_alpha: without lora_r all weights are trained"),
        (["--tokenizer", "nowhere"], "--tokenizer nowhere: no tokenizer.json"),
        (["--model-config", "nowhere.json"], "--model-config nowhere.json: cannot be read"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(workspace, tmp_path, options, message):
    result = llada_train(*workspace.pretrain(tmp_path / "out", *options))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_option_is_named():
    result = llada_train("pretrain", "--nonsense")
    assert result.returncode == 2
    assert "--nonsense" in result.stderr


@pytest.mark.parametrize("command", ["tokenizer", "pretrain", "sft", "pipeline", "generate", "eval", "export"])
def test_every_command_has_help(command):
    result = llada_train(command, "--help")
    assert result.returncode == 0
    assert "--" in result.stdout


def test_the_sampling_options_are_those_of_the_core():
    assert set(get_args(Method)) == set(METHODS)
    assert set(get_args(Remasking)) == set(REMASKING)


def test_help_does_not_wait_for_torch():
    code = "import sys, training.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_model_is_not_written_over_by_its_own_training(workspace, tmp_path):
    base = shutil.copytree(workspace.folder / "base", tmp_path / "base")
    result = llada_train(*workspace.sft(base, "--model-name-or-path", base, "--resume"))
    assert f"--output-dir {base}: is --model-name-or-path too" in result.stderr


def test_sharding_on_one_process_is_said_to_do_nothing(workspace, tmp_path):
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--max-steps", 1, "--strategy", "fsdp"))
    assert "warning: --strategy fsdp shards over processes" in printed


def test_a_tokenizer_that_cannot_be_written_is_found_before_it_is_trained(workspace):
    result = llada_train(
        "tokenizer", "--output-dir", "/proc/out", "--train-data-path", workspace.folder / "pretrain.jsonl"
    )
    assert "--output-dir /proc/out: cannot be written" in result.stderr


def test_no_data_at_all_is_named(workspace, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("output_dir: out\npretraining: {train_data_path: [], max_steps: 1}\n")
    assert "pretraining: train_data_path is []" in llada_train("pipeline", "--config", file).stderr


def test_an_output_folder_with_something_in_it_is_refused_without_resume(workspace, tmp_path):
    (tmp_path / "note").write_text("mine")
    result = llada_train(*workspace.pretrain(tmp_path))
    assert result.returncode == 1
    assert "is not empty" in result.stderr


def test_resume_without_a_checkpoint_starts_at_step_0_and_says_so(workspace, tmp_path):
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--max-steps", 1, "--resume"))
    assert "no checkpoint yet: from step 0" in printed


def test_an_output_folder_that_cannot_be_written_is_found_at_the_start(workspace, tmp_path):
    (tmp_path / "file").write_text("")
    result = llada_train(*workspace.pretrain(tmp_path / "file"))
    assert "file: cannot be written: File exists" in result.stderr


def test_a_full_disk_is_found_at_the_start(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": 10_000}))
    result = llada_train(*workspace.pretrain(tmp_path / "out"))
    assert "MB needed for checkpoints and the finished model, 0 MB free; lower --keep-last" in result.stderr


def test_sizes_of_the_config_give_way_to_the_tokenizer_and_it_says_so(workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "vocab_size": 999}))
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--model-config", config, "--max-steps", 1))
    size = len(Tokenizer.from_folder(workspace.folder / "tokenizer"))
    assert f"vocab_size: 999 in config.json, {size} in the tokenizer" in printed


def test_a_loss_that_is_not_finite_stops_with_step_and_checkpoint(workspace, tmp_path):
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--learning-rate", 1e38, "--warmup-steps", 0))
    assert result.returncode == 1
    assert "is not finite in step" in result.stderr
    assert "last good checkpoint: none yet" in result.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_what_lowers_it(workspace, tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("training.stages.objective.Objective.forward", fail)
    result = llada_train(*workspace.pretrain(tmp_path / "out"))
    assert result.returncode == 1
    assert "out of memory: lower --micro-batch-size" in result.stderr
    assert "--activation-checkpointing" in result.stderr and "Traceback" not in result.stderr


def test_samples_over_the_maximal_length_are_dropped_or_truncated_and_counted(workspace, tmp_path):
    long = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "word " * 60}]}
    short = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "yes"}]}
    data = write_jsonl(tmp_path / "data.jsonl", [long, short])
    options = ["--train-data-path", data, "--max-steps", 1]
    dropped = succeed(*workspace.sft(tmp_path / "drop", *options))
    assert "1 samples, " in dropped and "1 longer than 48 tokens left out" in dropped
    truncated = succeed(*workspace.sft(tmp_path / "truncate", *options, "--overlong", "truncate"))
    assert "2 samples, " in truncated and "1 longer than 48 tokens cut" in truncated
