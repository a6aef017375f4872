"""`llada-train` from text to a model that the server loads, and its answers to wrong input."""

import subprocess
import sys

import httpx
import pytest
import torch

from llada_core import load_model, load_tokenizer
from llada_core.text.tokenizer import Message
from tests.live_server import ForkedServer
from tests.training.conftest import ROOT, llada_train, succeed


def test_text_becomes_a_model_that_the_server_serves(workspace, tmp_path):
    instruct = tmp_path / "instruct"
    output = succeed(*workspace.sft(instruct))
    assert f"llada-server --model {instruct}" in output
    assert load_model(instruct).dtype == torch.float32
    tokenizer = load_tokenizer(instruct)
    assert tokenizer is not None and tokenizer.encode_chat([Message("user", "Hi")])
    with ForkedServer("--model", str(instruct), "--max-model-len", "64") as server:
        body = {"messages": [{"role": "user", "content": "After 5?"}], "max_tokens": 8}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).json()
    assert answer["model"] == "instruct"
    assert answer["usage"]["denoising_steps"] >= 1


def test_options_may_be_written_with_underscores(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out", "--max_steps", 1, "--micro_batch_size", 2))


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
        (["--eval-gen-length", 200, "--eval-prompt", "x"], "--eval-gen-length is 200; it must be at most"),
        (["--seed", -1], "seed is -1"),
        (["--output-dir", "/proc/out"], "--output-dir /proc/out: cannot be written"),
        (["--lora-alpha", 8], "lora_alpha: without lora_r or adapter all weights are trained"),
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


@pytest.mark.parametrize(
    "command", ["tokenizer", "pretrain", "sft", "dpo", "grpo", "distill", "pipeline", "generate", "eval", "export"]
)
def test_every_command_has_help(command):
    result = llada_train(command, "--help")
    assert result.returncode == 0
    assert "--" in result.stdout


def test_help_does_not_wait_for_torch():
    code = "import sys, training.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
