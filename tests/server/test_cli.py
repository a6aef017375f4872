"""`llada-server` as a process: its options, the line it prints, its shutdown."""

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file

from llada_core import LLM
from server import cli
from tests.conftest import GOLDEN
from tests.live_server import LLADA_SERVER, ForkedServer, LiveServer
from tests.server.conftest import until

TINY = str(GOLDEN / "models" / "tiny-mha")
LONG = {"prompt": [1, 2], "max_tokens": 250, "ignore_eos": True}


def llada_server(*options: str) -> subprocess.CompletedProcess[str]:
    return LLADA_SERVER.run("server.cli:main", *options)


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
    with ForkedServer("--model", TINY, "--shutdown-grace", "0") as server:
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
    with ForkedServer("--model", TINY, "--shutdown-grace", "60") as server, ThreadPoolExecutor(24) as pool:
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
        (["--nonsense"], "unknown option --nonsense; --help lists all options"),
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


def test_a_port_in_use_is_one_line_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # The model does not exist, which would be said later.
        command = [sys.executable, "-m", "server.cli", "--model", "./nowhere", "--port", str(port)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        f"llada-server: can't listen on 127.0.0.1, port {port}: address already in use; choose another --port\n"
    )


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.7", "not a host"])
def test_a_host_that_is_not_this_machine_is_one_line(host):
    result = llada_server("--host", host, "--port", "0")
    assert result.returncode == 2
    assert result.stderr.startswith(f"llada-server: can't listen on {host}, port 0: ")
    assert result.stderr.count("\n") == 1


def is_alive(port):
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code == 200
    except httpx.ConnectError:
        return False


def test_a_signal_ends_a_server_that_is_loading():
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    command = [sys.executable, "-m", "server.cli", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: is_alive(port), seconds=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_loading_is_logged_every_few_seconds(monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr(cli.time, "monotonic", lambda: now)
    caplog.set_level("INFO", "server.cli")
    progress = cli._Progress()
    for second in range(8):
        now = 100.0 + second
        progress(second / 8)
    assert caplog.messages == ["loaded 38 % of the weights", "loaded 75 % of the weights"]


def test_on_all_addresses_any_address_is_answered_to_and_another_name_is_not():
    with ForkedServer("--model", TINY, "--host", "0.0.0.0") as server:
        port = server.url.rpartition(":")[2]
        for name in ("localhost", "127.0.0.1"):
            assert httpx.get(f"http://{name}:{port}/ready").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/ready", headers={"Host": "evil.example"}).status_code == 403


def test_a_chat_template_replaces_the_chat_format(tmp_path):
    (tmp_path / "plain.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    messages = [{"role": "user", "content": "Hi <|eot_id|>"}]
    with ForkedServer("--chat-template", str(tmp_path / "plain.jinja")) as server:
        ids = httpx.post(f"{server.url}/tokenize", json={"messages": messages}).json()["tokens"]
        text = httpx.post(f"{server.url}/detokenize", json={"tokens": ids}).json()["prompt"]
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": messages, "max_tokens": 4})
    assert text == "user: Hi <|eot_id|>\n"
    # Text that a user writes neither opens nor ends a turn.
    assert 5 not in ids
    assert answer.json()["usage"]["prompt_tokens"] == len(ids)


def test_an_adapter_is_merged_into_the_served_model(tmp_path):
    torch.manual_seed(0)
    module = "base_model.model.model.transformer.blocks.0.ff_proj"
    hidden, inner = (json.loads((Path(TINY) / "config.json").read_text())[k] for k in ("d_model", "mlp_hidden_size"))
    tensors = {f"{module}.lora_A.weight": torch.randn(2, hidden), f"{module}.lora_B.weight": torch.randn(inner, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 64, "base_model_name_or_path": TINY}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    body = {"prompt": [1, 2], "max_tokens": 8, "ignore_eos": True, "return_token_ids": True}
    with ForkedServer("--model", TINY, "--adapter", str(tmp_path)) as server:
        served = httpx.post(f"{server.url}/v1/completions", json=body).json()["choices"][0]["token_ids"]
    plain, adapted = (
        LLM(TINY, device="cpu", adapter=adapter).generate([[1, 2]], max_tokens=8, ignore_eos=True)[0].token_ids
        for adapter in (None, tmp_path)
    )
    assert served == adapted != plain
    result = llada_server("--model", str(tmp_path), "--port", "0")
    assert result.returncode == 1
    reason = f"llada-server: {tmp_path}: a LoRA adapter, not a model: load {TINY} with this folder"
    assert result.stderr.splitlines()[-1].startswith(reason)


def test_a_broken_chat_template_is_refused_with_its_line(tmp_path):
    (tmp_path / "broken.jinja").write_text("{% for m in messages %}\n{{ m.role }")
    result = llada_server("--chat-template", str(tmp_path / "broken.jinja"))
    assert result.returncode != 0
    assert "chat template, line 2" in result.stderr
    assert "Traceback" not in result.stderr


def test_json_logs_are_one_object_per_line_and_tell_of_a_missing_tokenizer():
    result = llada_server("--model", TINY, "--log-format", "json", "--port", "0", "--max-model-len", "999")
    *records, reason = result.stderr.splitlines()
    assert reason.startswith("llada-server: --max-model-len is 999; it must be at most")
    records = [json.loads(line) for line in records]
    assert records and all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    assert any("has no tokenizer.json: prompts must be token ids" in record["message"] for record in records)
