"""A small setup for training: data, a model config, a tokenizer, and the command line in this process."""

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import typer
import yaml

from tests.forked import ForkedProcess
from tests.training.forked import LLADA_TRAIN
from tests.training.two_processes import TwoProcesses
from training.cli import app, main

ROOT = Path(__file__).parent.parent.parent
CONFIG = {
    **json.loads((ROOT / "training" / "configs" / "demo-model.json").read_text()),
    "d_model": 32,
    "n_heads": 2,
    "n_kv_heads": 2,
    "n_layers": 2,
    "mlp_hidden_size": 48,
    "max_sequence_length": 96,
}
# Typer reads every option of every command to make it, for 20 ms; a test runs several command lines.
COMMAND_LINE = typer.main.get_command(app)


@dataclass(frozen=True)
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def llada_train(*arguments: object) -> Outcome:
    """Run the command line in this process, which saves the imports of a new one."""
    out, err = io.StringIO(), io.StringIO()
    returncode = 0
    words = ["llada-train", *map(str, arguments)]
    with redirect_stdout(out), redirect_stderr(err), patch("sys.argv", words), patch("training.cli.app", COMMAND_LINE):
        try:
            main()
        except SystemExit as exit_:
            returncode = int(exit_.code or 0)
    return Outcome(returncode, out.getvalue(), err.getvalue())


def succeed(*arguments: object) -> str:
    """Run the command line, which must succeed, and return what it printed."""
    outcome = llada_train(*arguments)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def start(*arguments: object, processes: int | None = None) -> subprocess.Popen[str] | ForkedProcess:
    """Start the command line in a process of its own, or in several under `torchrun`."""
    words = list(map(str, arguments))
    if processes is None:
        return LLADA_TRAIN.start("training.cli:main", *words)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*launcher, "-m", "training.cli", *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_exists(path: Path, process: subprocess.Popen[str] | ForkedProcess | None = None) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process is None or process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output: Path, name: str = "loss") -> dict[int, float]:
    return {record["step"]: record[name] for record in records(output) if name in record}


def write_jsonl(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@dataclass(frozen=True)
class Workspace:
    """A folder with a file of data for each stage, config.json, tokenizer/ and base/."""

    folder: Path

    def pretrain(self, output: Path, *options: object) -> list[object]:
        return [
            "pretrain", "--model-config", self.folder / "config.json", "--tokenizer", self.folder / "tokenizer",
            "--train-data-path", self.folder / "pretrain.jsonl", "--output-dir", output, "--max-length", 24,
            "--batch-size", 4, "--max-steps", 12, "--save-steps", 4, "--learning-rate", 1e-3, "--warmup-steps", 4,
            "--log-steps", 1, "--threads", 1, *options,
        ]  # fmt: skip

    def sft(self, output: Path, *options: object) -> list[object]:
        return [
            "sft", "--model-name-or-path", self.folder / "base", "--train-data-path", self.folder / "sft.jsonl",
            "--output-dir", output, "--max-length", 48, "--batch-size", 4, "--max-steps", 12, "--save-steps", 4,
            "--learning-rate", 1e-3, "--warmup-steps", 4, "--log-steps", 1, "--pad-to", 64, "--threads", 1, *options,
        ]  # fmt: skip

    def dpo(self, output: Path, *options: object) -> list[object]:
        return [
            "dpo", "--model-name-or-path", self.folder / "base", "--train-data-path", self.folder / "pairs.jsonl",
            "--output-dir", output, "--max-length", 48, "--batch-size", 4, "--max-steps", 12, "--save-steps", 4,
            "--learning-rate", 1e-3, "--warmup-steps", 4, "--log-steps", 1, "--mc-num", 2, "--threads", 1, *options,
        ]  # fmt: skip

    def grpo(self, output: Path, *options: object) -> list[object]:
        return [
            "grpo", "--model-name-or-path", self.folder / "base", "--train-data-path", self.folder / "questions.jsonl",
            "--output-dir", output, "--max-length", 48, "--gen-length", 6, "--steps", 3, "--batch-size", 2,
            "--group-size", 3, "--reward", "tests.training.scoring:share_of_digits", "--max-steps", 12,
            "--save-steps", 4, "--learning-rate", 1e-3, "--warmup-steps", 4, "--log-steps", 1, "--threads", 1, *options,
        ]  # fmt: skip

    def distill(self, output: Path, *options: object, answers: object = None) -> list[object]:
        return [
            "distill", "--model-name-or-path", self.folder / "base",
            "--train-data-path", answers or self.folder / "answers.jsonl", "--output-dir", output, "--max-length", 48,
            "--block-length", 4, "--batch-size", 4, "--max-steps", 12,
            "--save-steps", 4, "--learning-rate", 1e-3, "--warmup-steps", 4, "--log-steps", 1, "--threads", 1, *options,
        ]  # fmt: skip


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    """Data, a model config, a trained tokenizer and a base model trained for a few steps."""
    folder = tmp_path_factory.mktemp("training")
    write_jsonl(folder / "pretrain.jsonl", [{"text": f"The number {n} comes after {n - 1}."} for n in range(1, 200)])
    dialogues = [
        {"messages": [{"role": "user", "content": f"After {n}?"}, {"role": "assistant", "content": f"{n + 1}."}]}
        for n in range(100)
    ]
    write_jsonl(folder / "sft.jsonl", dialogues)
    pairs = [{"prompt": f"After {n}?", "chosen": f"{n + 1}.", "rejected": f"It is {n + 1}."} for n in range(40)]
    write_jsonl(folder / "pairs.jsonl", pairs)
    questions = [{"prompt": f"After {n}?", "answer": f"{n + 1}."} for n in range(40)]
    write_jsonl(folder / "questions.jsonl", questions)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    succeed(
        "tokenizer", "--vocab-size", 400, "--output-dir", folder / "tokenizer",
        "--train-data-path", folder / "pretrain.jsonl", "--train-data-path", folder / "sft.jsonl",
    )  # fmt: skip
    workspace = Workspace(folder)
    succeed(*workspace.pretrain(folder / "base"))
    succeed(
        "generate", "--model-name-or-path", folder / "base", "--input", folder / "questions.jsonl",
        "--output", folder / "answers.jsonl", "--trajectory", "--gen-length", 10, "--block-length", 4,
        "--confidence-threshold", 0.02,
    )  # fmt: skip
    return workspace


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory) -> Iterator[TwoProcesses]:
    with TwoProcesses(tmp_path_factory.mktemp("two-processes")) as pair:
        yield pair


@pytest.fixture
def config(workspace, tmp_path):
    """A function that writes a config file, with changes; its stages take a second each."""

    def write(**changes):
        content = {
            "output_dir": str(tmp_path / "out"),
            "seed": 1,
            "threads": 1,
            "model": {"config": str(workspace.folder / "config.json"), "max_length": 48},
            "tokenizer": {"train_data_path": [str(workspace.folder / "pretrain.jsonl")], "vocab_size": 300},
            "pretraining": {
                "train_data_path": [str(workspace.folder / "pretrain.jsonl")],
                "max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup_steps": 1, "max_length": 24,
            },
            "sft": {"train_data_path": str(workspace.folder / "sft.jsonl"), "max_steps": 3, "batch_size": 4},
            "inference": {"default_method": "fixed_length", "gen_length": 8, "remasking": "low_confidence"},
            **changes,
        }  # fmt: skip
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    return write
