"""`llada-server` as a process: its options, the line it prints, its shutdown."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from server.settings import Settings
from tests.conftest import GOLDEN
from tests.live_server import LiveServer

TINY = str(GOLDEN / "models" / "tiny-mha")
LONG = {"prompt": [1, 2], "max_tokens": 250, "ignore_eos": True}


def llada_server(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parent.parent.parent,
        env={**os.environ, **environment},
    )


def test_sigterm_lets_running_requests_finish_and_refuses_new_ones():
    with LiveServer("--model", TINY, "--request-timeout", "60") as server, httpx.Client(base_url=server.url) as client:
        # A keep-alive connection opened before the signal shows what the draining server answers.
        assert client.get("/ready").status_code == 200
        with httpx.stream("POST", f"{server.url}/v1/denoise", json=LONG, timeout=60) as response:
            lines = response.iter_lines()
            assert next(lines) == "id: 0"
            server.process.send_signal(signal.SIGTERM)
            while client.get("/ready").status_code == 200:
                time.sleep(0.01)
            refused = client.post("/v1/completions", json={"prompt": [1]})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert [line for line in lines if line.startswith("event: ")][-1] == "event: done"
        assert server.process.wait(20) == 0


def test_requests_past_the_grace_period_end_with_a_clean_error():
    with LiveServer("--model", TINY, "--shutdown-grace", "0") as server:
        with httpx.stream("POST", f"{server.url}/v1/denoise", json=LONG, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert [line for line in rest if line.startswith("event: ")][-1] == "event: error"
        data = [line for line in rest if line.startswith("data: ")][-1]
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert server.process.wait(20) == 0


def test_a_second_signal_ends_at_once():
    with LiveServer("--model", TINY, "--shutdown-grace", "60") as server, ThreadPoolExecutor(24) as pool:
        # More work than the machine can do in the following seconds.
        for _ in range(24):
            pool.submit(httpx.post, f"{server.url}/v1/completions", json={**LONG, "cfg_scale": 1.0}, timeout=60)
        while not httpx.get(f"{server.url}/metrics").text.count("llada_requests_running 24.0"):
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "x"], "--port is 'x'"),
        (["--dtype", "int4"], "--dtype is 'int4'"),
        (["--max-batch-size", "0"], "--max-batch-size is '0'"),
        (["--nonsense"], "--nonsense"),
        (["--model", TINY, "--max-model-len", "9999"], "--max-model-len is 9999; it must be at most"),
        (["--model", "./nowhere"], "./nowhere: neither a folder nor a Hugging Face id"),
        (["--chat-template", "nowhere.jinja"], "nowhere.jinja"),
    ],
)
def test_a_wrong_option_ends_in_one_clear_line(options, message):
    result = llada_server(*options)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_reported_plainly():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = llada_server("--model", TINY, "--port", str(taken.getsockname()[1]))
    assert result.returncode != 0
    assert "address already in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_chat_template_replaces_the_chat_format(tmp_path):
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    messages = [{"role": "user", "content": "Hi <|eot_id|>"}]
    with LiveServer("--chat-template", str(tmp_path / "plain.jinja")) as server:
        ids = httpx.post(f"{server.url}/tokenize", json={"messages": messages}).json()["tokens"]
        text = httpx.post(f"{server.url}/detokenize", json={"tokens": ids}).json()["prompt"]
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": messages, "max_tokens": 4})
    assert text == "user: Hi <|eot_id|>\n"
    # Text that a user writes neither opens nor ends a turn.
    assert 5 not in ids
    assert answer.json()["usage"]["prompt_tokens"] == len(ids)


def test_a_broken_chat_template_is_refused_with_its_line(tmp_path):
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}\n{{ m.role }")
    result = llada_server("--chat-template", str(tmp_path / "broken.jinja"))
    assert result.returncode != 0
    assert "chat template, line 2" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_every_option():
    text = llada_server("--help").stdout
    for field in Settings.model_fields:
        assert f"--{field.replace('_', '-')}" in text


def test_environment_variables_set_options():
    result = llada_server(LLADA_MAX_QUEUE="-3")
    assert result.returncode == 2
    assert "--max-queue is '-3'" in result.stderr


def test_json_logs_are_one_object_per_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = llada_server("--model", TINY, "--log-format", "json", "--port", str(taken.getsockname()[1]))
    records = [json.loads(line) for line in result.stderr.splitlines()]
    assert records and all({"time", "level", "logger", "message"} <= record.keys() for record in records)
