"""The examples in the documents run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import torch
import typer
from PIL import Image

from docs.pictures.make import RUNS, command_of
from llada_core import DEMO_FOLDER, load_model
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens
from llada_core.text.special_tokens import SpecialTokens
from server import app as server_app
from server import options
from server.engine import metrics
from tests.server import conftest as server_conftest
from tests.training import conftest as training_conftest
from tests.training.conftest import succeed, write_jsonl
from training.cli import app
from training.options.sections import SECTION_OF_COMMAND, SECTIONS
from training.stages.table import STAGES

ROOT = Path(__file__).parent.parent


def blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(), flags=re.DOTALL)


def test_the_readmes_python_runs(capsys):
    for block in blocks("README.md", "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("\n") >= 5


def test_the_example_of_a_constraint_runs(capsys):
    (block,) = blocks("docs/constraints.md", "python")
    exec(compile(block, "docs/constraints.md", "exec"), {})
    assert set(json.loads(capsys.readouterr().out)) == {"capital"}


def test_the_openai_example_runs(live_server, capsys):
    for block in blocks("docs/api.md", "python"):
        exec(compile(block.replace("http://127.0.0.1:8000", live_server), "docs/api.md", "exec"), {})
    assert "fox" in capsys.readouterr().out


def test_the_examples_of_decisions_run(live_server, capsys):
    for block in blocks("docs/decisions.md", "python"):
        exec(compile(block.replace("http://127.0.0.1:8000", live_server), "docs/decisions.md", "exec"), {})
    probability, choice, *_ = capsys.readouterr().out.split()
    assert 0 < float(probability) < 1 and choice in ("food", "staff", "both")


def test_the_python_clients_example_runs(live_server, capsys, monkeypatch):
    monkeypatch.setenv("LLADA_SERVER", live_server)
    (block,) = blocks("docs/clients.md", "python")
    exec(compile(block, "docs/clients.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "Paris" in printed and "0 masks left" in printed


def example_of(title: str) -> dict[str, Any]:
    """What the example under a title of the page of extensions defines."""
    text = (ROOT / "docs" / "extending.md").read_text()
    (section,) = (part for part in text.split("\n## ") if part.startswith(title))
    (block,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    example: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, "docs/extending.md", "exec"), example)
    return example


@torch.inference_mode()
def test_the_example_of_an_architecture_is_the_same_in_both_interpreters():
    example = example_of("An architecture")
    config = example["ToyConfig"]()
    network, name_of = Network(config).eval(), config.describe().names.tensor
    tensors = network.state_dict()
    on_cpu = CPUMaskPredictor(
        config, SpecialTokens(159, 158, None), lambda *role: tensors[name_of(*role)], dtype=torch.float32
    )
    packed = PackedTokens(torch.arange(20), (11, 9))
    expected, logits = (model.head(model.hidden_states(packed)) for model in (network, on_cpu))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    assert on_cpu.shape.sampler.defaults["cache"] == "exact"


def test_the_examples_of_a_route_an_option_and_a_metric_work_together(tiny, demo_tokenizer, monkeypatch, capsys):
    with patch.dict(options.GROUPS["limits"]):
        example = example_of("A metric") | example_of("A route")
        monkeypatch.setattr(options, "Settings", example["CountingSettings"])
        assert options.read_settings(["--longest-count", "5"]).longest_count == 5
        for words, said in ((["--longest-count", "0"], "--longest-count is '0'"), (["--help"], "/v1/count counts")):
            with pytest.raises(SystemExit):
                options.read_settings(words)
            assert said in "".join(capsys.readouterr())
    monkeypatch.setattr(metrics, "AnswerMetrics", example["CountingMetrics"])
    monkeypatch.setattr(server_app, "ROUTE_MODULES", (*server_app.ROUTE_MODULES, SimpleNamespace(**example)))
    monkeypatch.setattr(server_conftest, "Settings", example["CountingSettings"])
    with server_conftest.serving(tiny, demo_tokenizer, longest_count=5) as url:
        assert httpx.post(f"{url}/v1/count", json={"text": "What is it?"}).json() == {"num_tokens": 4}
        error = httpx.post(f"{url}/v1/count", json={"text": "What is it? " * 5}).json()["error"]
        assert error["param"] == "text" and "must have at most 5 (--longest-count)" in error["message"]
        assert httpx.post(f"{url}/v1/count", json={"texts": "x"}).json()["error"]["param"] == "texts"
        assert server_conftest.gauge(url, "llada_counted_tokens_total") == 4
        assert "/v1/count" in httpx.get(f"{url}/openapi.json").json()["paths"]


def test_the_example_of_a_training_stage_trains(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(training_conftest.CONFIG))
    data = write_jsonl(tmp_path / "texts.jsonl", [{"text": "The sun is warm."}] * 40)
    monkeypatch.setattr(app, "registered_commands", [*app.registered_commands])
    with patch.dict(SECTIONS), patch.dict(SECTION_OF_COMMAND), patch.dict(STAGES):
        example_of("A training stage")
        monkeypatch.setattr(training_conftest, "COMMAND_LINE", typer.main.get_command(app))
        run = [
            "backwards", "--model-config", tmp_path / "config.json", "--tokenizer", DEMO_FOLDER, "--threads", 1,
            "--train-data-path", data, "--max-length", 24, "--batch-size", 4, "--max-steps", 3, "--warmup-steps", 1,
            "--output-dir", tmp_path / "out",
        ]  # fmt: skip
        assert re.search(r"clean:.*\. warm is sunThe", succeed(*run, "--dry-run"))
        succeed(*run)
    assert load_model(tmp_path / "out").shape.num_layers == 2


def test_what_the_page_of_extensions_names_exists():
    files = [
        f"/{path.relative_to(ROOT).as_posix()}"
        for folder in ("llada_core", "server", "training", "clients", "tests", "docs")
        for path in (ROOT / folder).rglob("*.*")
    ]
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`([^`\n]+)`", (ROOT / "docs" / "extending.md").read_text()))
    assert len(names) > 100
    for path, _, test in (name.partition("::") for name in names):
        if test or path.startswith("test_"):
            is_file = path.endswith(".py")
            assert f"def {test or path}(" in tests or (is_file and not test), path
        if path.endswith((".py", ".md", ".html")) and "NAME" not in path and path != "README.md":
            assert any(file.endswith(f"/{path}") for file in files), path


@pytest.mark.parametrize("file", ["README.md", "docs/api.md", "docs/behaviour.md"])
def test_every_curl_line_gets_an_answer(live_server, file):
    commands = re.findall(r"curl .*?(?=\n\n|\Z)", "\n\n".join(blocks(file, "bash")), flags=re.DOTALL)
    assert commands
    for command in commands:
        words = shlex.split(command)
        url = next(word for word in words if word.startswith("http"))
        given = [words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H"]
        # What curl says of the body of `-d` where the command does not.
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | dict(given)
        body = words[words.index("-d") + 1]
        url = url.replace("http://127.0.0.1:8000", live_server)
        answer = httpx.post(url, content=body.encode(), headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text


def test_the_infilling_examples_read_well(live_server):
    commands = re.findall(r"curl .*?(?=\n\n|\Z)", "\n\n".join(blocks("docs/api.md", "bash")), flags=re.DOTALL)
    (fim,) = (json.loads(shlex.split(command)[-1]) for command in commands if "/fim/" in command)
    text = httpx.post(f"{live_server}/v1/fim/completions", json=fim).json()["choices"][0]["text"]
    # "Once upon a time there was a … named Tom."
    assert re.fullmatch(r"( [a-z]+){1,2}", text)
    (canvas,) = (json.loads(shlex.split(command)[-1]) for command in commands if "is Rome" in command)
    events = httpx.post(f"{live_server}/v1/denoise", json=canvas, timeout=60).text
    done = json.loads(events.split("event: done\ndata: ")[1].splitlines()[0])
    assert done["text"] == "The capital of France is Paris. The capital of Italy is Rome."


@pytest.mark.parametrize("file", ["README.md", "docs/terminal.md"])
def test_every_llada_command_works(live_server, tmp_path, file):
    commands = [
        line for block in blocks(file, "bash") for line in block.splitlines() if re.search(r"(^|[ /])llada [a-z]", line)
    ]
    assert commands
    llada = f"{shlex.quote(sys.executable)} -m clients.terminal.cli"
    environment = {**os.environ, "LLADA_SERVER": live_server, "PYTHONPATH": str(ROOT)}
    for line in commands:
        command = re.sub(r"(?:\.venv/bin/)?\bllada (?=[a-z])", f"{llada} ", line)
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0 and "Traceback" not in result.stderr, f"{line}: {result.stderr}"


def test_sampling_shows_every_picture_with_the_command_that_makes_the_run():
    text = (ROOT / "docs" / "sampling.md").read_text()
    shown = re.findall(r"```bash\n(.*?)\n```\n\n!\[.*?\]\(pictures/(.*?)\.png\)", text)
    assert shown == [(command_of(name), name) for _, name in shown]
    assert {name for _, name in shown} == set(RUNS)


@pytest.mark.parametrize("file", ["README.md", "docs/page.md", "docs/sampling.md"])
def test_every_picture_is_there_and_small(file):
    pictures = re.findall(r"!\[.+?\]\((.*?)\)", (ROOT / file).read_text())
    assert pictures
    for picture in pictures:
        path = (ROOT / file).parent / picture
        assert path.stat().st_size < 600_000
        with Image.open(path) as image:
            assert image.width > 300


def test_the_way_from_own_data_to_a_model_runs_as_documented(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    block = blocks("docs/training.md", "bash")[0].replace("\\\n", " ").replace("out/", f"{tmp_path}/")
    commands = [shlex.split(line, comments=True) for line in block.splitlines() if line.startswith("llada-train")]
    assert [command[1] for command in commands] == ["tokenizer", "pretrain", "sft", "generate"]
    for command in commands:
        # Fewer steps: the last of a repeated option counts.
        shorter = ["--max-steps", "3"] if command[1] in ("pretrain", "sft") else []
        assert succeed(*command[1:], *shorter)
    assert "llada-server --model" in block


def test_every_path_in_the_readmes_tree_exists():
    text = (ROOT / "README.md").read_text()
    tree = text[text.index("\nllada_core/") + 1 :].split("```")[0]
    folder = Path()
    for line in tree.splitlines():
        name = line.split()[0]
        folder = folder if line.startswith(" ") else Path(name)
        path = folder / name if line.startswith(" ") else folder
        assert (ROOT / path).exists(), path


def test_every_field_of_the_api_page_is_a_field_of_the_server_and_back():
    from server.schemas.denoise import DenoiseRequest
    from server.schemas.openai import ChatCompletionRequest, CompletionRequest
    from server.schemas.responses import ResponseRequest

    text = (ROOT / "docs" / "api.md").read_text()
    section = text[text.index("## Fields") : text.index("## Events")]
    bodies = (CompletionRequest, ChatCompletionRequest, DenoiseRequest, ResponseRequest)
    known = set().union(*(body.model_fields for body in bodies))
    documented = set(re.findall(r"`(\w+)[`.]", section))
    assert known <= documented | {"stream_options"}
    for row in re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE):
        for name in re.findall(r"`(\w+)", row):
            assert name in known | {"field"}, name
