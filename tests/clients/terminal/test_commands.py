"""The commands of `llada` with files or pipes for their streams, against a real server with the demo model."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from typer.testing import CliRunner

from clients import LLaDAClient
from clients.terminal.chat import Conversation
from clients.terminal.cli import app
from tests.clients.python.cutting_proxy import CuttingProxy
from tests.clients.terminal.conftest import ROOT
from tests.clients.terminal.forked import LLADA

QUESTION = "What is the capital of France?"
LONG = ("--max-tokens", "400", "--steps", "400", "--set", "ignore_eos=true")


@pytest.fixture
def client(live_server):
    with LLaDAClient(live_server) as client:
        yield client


def num_running(server: str) -> float:
    metrics = urllib.request.urlopen(f"{server}/metrics").read().decode()
    (line,) = (line for line in metrics.splitlines() if line.startswith("llada_requests_running "))
    return float(line.split()[1])


def wait_until_running(server: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while num_running(server) != count:
        assert time.monotonic() < deadline, f"{num_running(server)} requests run, not {count}"
        time.sleep(0.02)


def test_complete_prints_the_text_and_nothing_else(llada, client):
    expected = client.complete("Once upon a time", max_tokens=16).text
    result = llada("complete", "Once upon a time", "--max-tokens", "16")
    assert (result.stdout, result.stderr, result.returncode) == (expected, "", 0)
    piped = llada("complete", "--max-tokens", "16", stdin="Once upon a time\n")
    dash = llada("complete", "-", "--max-tokens", "16", stdin="Once upon a time")
    assert piped.stdout == dash.stdout == expected


def test_complete_answers_a_chat_if_asked(llada, client):
    expected = client.chat(QUESTION, max_tokens=16).text
    assert llada("complete", "--chat", QUESTION, "--max-tokens", "16").stdout == expected
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": QUESTION}]
    result = llada("complete", "--chat", "--system", "Be kind.", QUESTION, "--max-tokens", "16")
    assert result.stdout == client.chat(messages, max_tokens=16).text


def test_watch_prints_only_the_final_text_into_a_pipe(llada, client):
    answer = client.chat(QUESTION, max_tokens=16).text
    assert llada("watch", QUESTION, "--max-tokens", "16").stdout == f"{answer}\n"
    raw = llada("watch", "--raw", "--max-tokens", "16", stdin="Once upon a time\n")
    assert raw.stdout == client.complete("Once upon a time", max_tokens=16).text + "\n"


def test_watch_compares_two_presets_with_one_seed(llada, tmp_path):
    file = tmp_path / "two.json"
    result = llada(
        "watch", QUESTION, "--max-tokens", "16", "--temperature", "1", "--compare", "fast", "--save", str(file)
    )
    first, second = json.loads(file.read_text())["runs"]
    assert result.stdout == f"exact:\n{first['done']['text']}\nfast:\n{second['done']['text']}\n"
    assert first["request"]["seed"] == second["request"]["seed"] == second["start"]["generation_params"]["seed"]
    assert "preset" not in first["request"] and second["request"]["preset"] == "fast"


def test_every_option_reaches_the_server(llada, tmp_path):
    file = tmp_path / "run.json"
    options = "--max-tokens 12 --steps 6 --block-length 12 --preset fast --method fixed_length --temperature 0.5"
    more = "--cfg-scale 0 --seed 7 --set remasking=random --set top_k=5 --set confidence_threshold=null --system Kind."
    result = llada("watch", QUESTION, *options.split(), *more.split(), "--save", str(file))
    assert result.returncode == 0, result.stderr
    (run,) = json.loads(file.read_text())["runs"]
    messages = [{"role": "system", "content": "Kind."}, {"role": "user", "content": QUESTION}]
    assert run["request"] == {
        "messages": messages,
        "max_tokens": 12,
        "steps": 6,
        "block_length": 12,
        "preset": "fast",
        "method": "fixed_length",
        "temperature": 0.5,
        "cfg_scale": 0.0,
        "seed": 7,
        "remasking": "random",
        "top_k": 5,
        "confidence_threshold": None,
    }


def test_gaps_are_filled_and_the_space_before_them_is_theirs(llada, client):
    expected = client.denoise(canvas=["The capital of France is", {"mask": 1}, ". It is in", {"mask": 2}, "."])
    *_, done = expected
    result = llada("fill", "The capital of France is [[1]]. It is in ___.", "--gap", "2")
    assert (result.stdout, result.returncode) == (f"{done.text}\n", 0)
    assert result.stdout.startswith("The capital of France is") and "[" not in result.stdout


@pytest.mark.parametrize(("text", "reason"), [("no gap", "has no gap"), ("a [[0]]", "at least one token")])
def test_a_text_without_a_gap_is_an_error_of_usage(llada, text, reason):
    result = llada("fill", text)
    assert result.returncode == 2 and reason in result.stderr


def test_models_are_listed_for_people_and_for_programs(llada, client):
    (model,) = client.models()
    table = llada("models").stdout
    assert model.id in table and str(model.max_model_len) in table
    (row,) = json.loads(llada("models", "--json").stdout)
    assert row["id"] == model.id and row["mask_token_id"] == model.mask_token_id


def test_a_chat_remembers_what_was_said_until_it_is_told_to_forget(llada, client):
    lines = ["What is 3 plus 4?", QUESTION, "/new", "What is 3 plus 4?", "/quit"]
    result = llada("chat", "--max-tokens", "16", stdin="\n".join(lines))
    first = client.chat(lines[0], max_tokens=16).text
    turns = [("user", lines[0]), ("assistant", first), ("user", QUESTION)]
    second = client.chat([{"role": role, "content": content} for role, content in turns], max_tokens=16).text
    assert result.stdout.splitlines()[:2] == [first, second] and result.stdout.splitlines()[-1] == first
    assert result.returncode == 0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_thinking_is_dimmed_on_a_terminal_and_left_out_elsewhere(monkeypatch, is_terminal):
    class Client:
        def stream_chat(self, messages, *, on_thinking, **fields):
            on_thinking("12 and 7\n")
            yield "It is 19."

    written = io.StringIO()
    written.isatty = lambda: is_terminal
    monkeypatch.setattr(sys, "stdout", written)
    conversation = Conversation(Client(), {}, None)
    conversation.ask("What is 12 + 7?")
    assert written.getvalue() == ("\x1b[2m12 and 7\n\x1b[0m" if is_terminal else "") + "It is 19.\n"
    assert conversation.turns[-1] == {"role": "assistant", "content": "It is 19."}


def test_settings_of_a_chat_are_shown_set_and_taken_away(llada):
    lines = [
        "/settings",
        "/settings preset=fast",
        "/settings preset=",
        "/settings wrong",
        "/system Kind.",
        "/system off",
    ]
    answers = llada("chat", stdin="\n".join(lines)).stdout.splitlines()
    assert answers[0].startswith("All fields have the server's defaults")
    assert answers[1] == 'preset="fast"' and answers[2] == answers[0]
    assert "NAME=VALUE" in answers[3] and answers[4:] == ["system: Kind.", "There is no system message."]


def test_an_error_does_not_end_a_chat(llada):
    result = llada(
        "chat", "--max-tokens", "16", stdin=f"/settings temperature=-1\nHi\n/settings temperature=\n{QUESTION}\n/x\n"
    )
    assert "error: temperature" in result.stderr and "Paris" in result.stdout
    assert "There is no /x" in result.stdout
    # A program that pipes its questions sees by the status that one was not answered.
    assert result.returncode == 1


def in_a_shell(live_server, command):
    """Run a command line in which LLADA stands for `llada`."""
    llada = f"{shlex.quote(sys.executable)} -m clients.terminal.cli"
    environment = {**os.environ, "LLADA_SERVER": live_server}
    line = command.replace("LLADA", llada)
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=60
    )


def test_a_line_that_is_no_text_does_not_end_a_chat(live_server):
    result = in_a_shell(live_server, rf"printf '\xff\xfe hello\n{QUESTION}\n' | LLADA chat --max-tokens 16")
    assert result.stderr == "error: the line is not UTF-8\n" and "Paris" in result.stdout


@pytest.mark.parametrize(
    "command", ["watch Once --max-tokens 4", "complete 'Once upon a time' --max-tokens 16", "models"]
)
def test_a_full_disk_is_one_line(live_server, command):
    result = in_a_shell(live_server, f"LLADA {command} > /dev/full")
    assert (result.stderr, result.returncode) == ("llada: No space left on device\n", 1)


def test_a_closed_output_is_no_traceback(live_server):
    assert "Traceback" not in in_a_shell(live_server, "LLADA models >&-").stderr


@pytest.mark.parametrize("command", [["models"], ["watch", "x"], ["complete", "x"], ["chat"], ["fill", "___"]], ids=str)
def test_without_a_server_one_sentence_says_how_to_start_one(llada, command):
    began = time.monotonic()
    result = llada(*command, "--server", "http://127.0.0.1:9")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1 and "make serve" in result.stderr and "llada-server" in result.stderr
    assert time.monotonic() - began < 5


def test_a_server_of_another_kind_is_said_to_be_one(llada):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [{"id": "another"}]}' if "models" in self.path else b"<html>")

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    result = llada("watch", "Hi", "--server", f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert (result.returncode, result.stderr) == (1, "error: what answers there is not a llada-server\n")


def test_the_options_of_the_server_stand_before_or_after_the_command(llada, live_server):
    assert llada("--server", live_server, "models", LLADA_SERVER="http://127.0.0.1:9").returncode == 0
    assert llada("models", "--server", live_server, LLADA_SERVER="http://127.0.0.1:9").returncode == 0
    assert llada("--api-key", "any", "models").returncode == 0


@pytest.mark.parametrize("command", ["watch", "complete"])
def test_what_the_server_refuses_is_one_line(llada, command):
    result = llada(command, "Hi", "--temperature", "-1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: temperature") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["watch", ""], "empty"),
        (["watch"], "empty"),
        (["watch", "x", "--speed", "9"], "from 1/4 to 4"),
        (["watch", "x", "--speed", "fast"], "from 1/4 to 4"),
        (["watch", "x", "--temperature", "nan"], "cannot be sent"),
        (["watch", "x", "--steps", "many"], "--steps"),
        (["watch", "x", "--set", "top_k"], "NAME=VALUE"),
        (["watch", "x", "--set", "n=2"], "n is not a field"),
        (["watch", "x", "--save", "run.txt"], ".json, .html, .cast, .gif"),
        (["watch", "x", "--save", "/no/such/run.gif"], "no folder"),
        (["complete", "x", "--system", "y"], "--chat"),
        (["models", "--server", "localhost:8000"], "http://"),
        (["models", "--server", "http://a:b"], "URL"),
        (["models", "--api-key", "ключ"], "ASCII"),
        (["paint"], "paint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_explained(arguments, reason):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and reason in result.stderr and result.stdout == ""


def test_bytes_that_are_no_text_are_an_error_of_usage(live_server):
    command = [sys.executable, "-m", "clients.terminal.cli", "complete", "--server", live_server]
    result = subprocess.run(command, input=b"\xff\xfe", capture_output=True, check=False, cwd=ROOT)
    assert result.returncode == 2 and b"UTF-8" in result.stderr and b"Traceback" not in result.stderr


def test_a_closed_pipe_is_silent(live_server):
    for command in ("complete", "watch"):
        script = f"{sys.executable} -m clients.terminal.cli {command} Once --max-tokens 64 | head -c 1"
        environment = {**os.environ, "LLADA_SERVER": live_server}
        result = subprocess.run(
            script, shell=True, capture_output=True, text=True, check=False, env=environment, cwd=ROOT
        )
        assert len(result.stdout) == 1 and result.stderr == ""


INTERRUPTED = [("complete", "Once"), ("watch", "Once"), ("watch", "Once", "--compare", "fast")]


@pytest.mark.parametrize("command", INTERRUPTED, ids=str)
def test_an_interrupt_cancels_on_the_server(live_server, command):
    process = LLADA.start("clients.terminal.cli:main", *command, *LONG, "--server", live_server)
    wait_until_running(live_server, 1 + ("--compare" in command))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and errors == ""
    wait_until_running(live_server, 0)


def test_a_stream_that_is_cut_is_taken_up_again_with_the_same_end(llada, live_server, tmp_path):
    files = [tmp_path / "whole.json", tmp_path / "cut.json"]
    request = ("watch", "Once", "--raw", "--max-tokens", "32", "--seed", "1", "--save")
    whole = llada(*request, str(files[0]))
    # The first connection only asks whether the server is there, in fewer bytes than these.
    with CuttingProxy(live_server, 100_000, 2500, 1800) as proxy:
        cut = llada(*request, str(files[1]), "--server", proxy.url)
        assert proxy.num_cut == 2
    assert (cut.stdout, cut.returncode) == (whole.stdout, 0)
    runs = [json.loads(file.read_text())["runs"][0] for file in files]
    assert runs[0]["done"]["token_ids"] == runs[1]["done"]["token_ids"]
    assert [step["step"] for step in runs[0]["steps"]] == [step["step"] for step in runs[1]["steps"]]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("clients", {"torch", "transformers", "numpy", "typer", "rich", "httpx"}),
        ("clients.terminal.cli", {"torch", "transformers", "numpy", "httpx", "PIL"}),
    ],
)
def test_it_starts_without_what_it_does_not_need(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert not heavy & set(loaded.split())


def test_it_says_its_version(llada):
    assert llada("--version").stdout.startswith("llada ")
