"""`llada-train` from text to a model that the server loads, and through interruptions."""

import io
import json
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
import torch
from safetensors.torch import load_file

from llada_core import load_model, load_tokenizer
from llada_core.tokenizer import Message, Tokenizer
from tests.live_server import LiveServer
from training.cli import main

ROOT = Path(__file__).parent.parent.parent
CONFIG = {
    **json.loads((ROOT / "training" / "configs" / "demo-model.json").read_text()),
    "d_model": 32,
    "n_heads": 2,
    "n_kv_heads": 2,
    "n_layers": 1,
    "mlp_hidden_size": 48,
    "max_sequence_length": 96,
}


@dataclass(frozen=True)
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def llada_train(*arguments: object) -> Outcome:
    """The command line in this process: its start-up is imports, and these are done."""
    out, err = io.StringIO(), io.StringIO()
    returncode = 0
    with redirect_stdout(out), redirect_stderr(err), patch("sys.argv", ["llada-train", *map(str, arguments)]):
        try:
            main()
        except SystemExit as exit_:
            returncode = int(exit_.code or 0)
    return Outcome(returncode, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    """Data, a model config and a trained tokenizer."""
    folder = tmp_path_factory.mktemp("training")
    facts = [f"The number {number} comes after {number - 1}." for number in range(1, 200)]
    (folder / "pretrain.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in facts))
    dialogues = [
        {"messages": [{"role": "user", "content": f"After {n}?"}, {"role": "assistant", "content": f"{n + 1}."}]}
        for n in range(100)
    ]
    (folder / "sft.jsonl").write_text("".join(json.dumps(dialogue) + "\n" for dialogue in dialogues))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    result = llada_train(
        "tokenizer", "--vocab-size", 400, "--output-dir", folder / "tokenizer",
        "--train-data-path", folder / "pretrain.jsonl", "--train-data-path", folder / "sft.jsonl",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder


def pretrain(workspace: Path, output: Path, *options: object) -> Outcome:
    return llada_train("pretrain", *pretrain_options(workspace, output), *options)


def pretrain_options(workspace: Path, output: Path) -> list[object]:
    return [
        "--model-config", workspace / "config.json", "--tokenizer", workspace / "tokenizer",
        "--train-data-path", workspace / "pretrain.jsonl", "--output-dir", output, "--max-length", 24,
        "--batch-size", 4, "--max-steps", 24, "--save-steps", 8, "--learning-rate", 1e-3, "--threads", 1,
    ]  # fmt: skip


def test_text_becomes_a_model_that_the_server_serves(workspace, tmp_path):
    base, instruct = tmp_path / "base", tmp_path / "instruct"
    result = pretrain(workspace, base)
    assert result.returncode == 0, result.stderr
    result = llada_train(
        "sft", "--model_name_or_path", base, "--train_data_path", workspace / "sft.jsonl", "--output-dir", instruct,
        "--max-length", 48, "--max-steps", 12, "--batch-size", 4, "--pad-to", 64, "--threads", 1,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert load_model(instruct).dtype == torch.float32
    tokenizer = load_tokenizer(instruct)
    assert tokenizer is not None and tokenizer.encode_chat([Message("user", "Hi")])
    with LiveServer("--model", str(instruct), "--max-model-len", "64") as server:
        body = {"messages": [{"role": "user", "content": "After 5?"}], "max_tokens": 8}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["model"] == "instruct"
    assert answer["usage"]["denoising_steps"] >= 1


def test_an_interrupted_run_ends_bit_for_bit_as_an_uninterrupted_one(workspace, tmp_path):
    assert pretrain(workspace, tmp_path / "whole").returncode == 0
    options = [str(option) for option in pretrain_options(workspace, tmp_path / "broken")]
    process = subprocess.Popen(
        [sys.executable, "-m", "training.cli", "pretrain", *options], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    until_exists(tmp_path / "broken" / "checkpoints" / "step-8")
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = pretrain(workspace, tmp_path / "broken", "--resume")
    assert result.returncode == 0, result.stderr
    assert "continuing from step 24" not in result.stdout
    assert "continuing from step" in result.stdout
    whole, resumed = (
        load_file(tmp_path / name / "checkpoints" / "step-24" / "model.safetensors") for name in ("whole", "broken")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def until_exists(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(workspace, tmp_path):
    options = [str(option) for option in pretrain_options(workspace, tmp_path / "out")]
    options[options.index("--max-steps") + 1] = "100000"
    process = subprocess.Popen(
        [sys.executable, "-m", "training.cli", "pretrain", *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until_exists(tmp_path / "out" / "checkpoints" / "step-8")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "--resume continues" in errors
    assert len(list((tmp_path / "out" / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "pretrain.jsonl, line 2: not JSON"),
        ('{"txt": "x"}', 'line 2: needs a non-empty string "text"'),
        ("[1]", "line 2: is a list; it must be an object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(workspace, tmp_path, line, message):
    bad = tmp_path / "pretrain.jsonl"
    bad.write_text(f'{{"text": "fine"}}\n{line}\n')
    result = pretrain(workspace, tmp_path / "out", "--train-data-path", bad)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_an_output_folder_with_something_in_it_is_refused_without_resume(workspace, tmp_path):
    (tmp_path / "note").write_text("mine")
    result = pretrain(workspace, tmp_path)
    assert result.returncode == 1
    assert "is not empty" in result.stderr


def test_sizes_of_the_config_give_way_to_the_tokenizer_and_it_says_so(workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "vocab_size": 999}))
    result = pretrain(workspace, tmp_path / "out", "--model-config", config, "--max-steps", 1)
    size = len(Tokenizer.from_folder(workspace / "tokenizer"))
    assert f"vocab_size: 999 in config.json, {size} in the tokenizer" in result.stdout


def test_a_wrong_option_is_named(workspace):
    result = llada_train("pretrain", "--nonsense")
    assert result.returncode == 2
    assert "--nonsense" in result.stderr
