"""The containers, really run: image built, two replicas behind nginx and Prometheus up, then down. `make docker-check`.

The tests are steps of one story and rely on their order.
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.docker_engine import BASE, ROOT, Docker, docker_engine
from tests.server.conftest import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
KEY = "from-a-file"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}
REPLICAS = ("llada", "llada-2")
BODY = {"prompt": "Once upon a time", "max_tokens": 64, "steps": 64, "temperature": 1, "seed": 7, "ignore_eos": True}
# For a container: begins a stream, reads its first step, drops the connection and prints the stream's id.
BREAK_A_STREAM = f"""
import httpx, json
with httpx.stream("POST", "http://127.0.0.1:8000/v1/denoise", json={BODY}, headers={AUTHORIZATION}) as response:
    lines = response.iter_lines()
    print(next(json.loads(line[6:])["id"] for line in lines if line.startswith("data: ")))
    assert "event: step" in lines
"""


class Stack:
    """The profile `replicas` of docker-compose.yml, in a project and on ports of its own.

    Attributes:
        services: those whose image can be had.
        figures: sizes and times, listed at the end.
    """

    def __init__(self, docker: Docker, folder: Path) -> None:
        self.docker = docker
        self.figures: dict[str, str] = {}
        self.services = list(REPLICAS)
        self._override = folder / "override.yml"
        self._override.write_text("{}")
        self._secrets = folder / "secrets"
        self._secrets.mkdir()
        self._models = folder / "models"
        (self._secrets / "llada_api_key").write_text(f"{KEY}\n")

    def compose(self, *words: str) -> str:
        files = ("--file", "docker-compose.yml", "--file", str(self._override))
        environment = {f"{name}_PUBLISHED_PORT": "0" for name in ("LLADA", "PROXY", "PROMETHEUS", "GRAFANA")}
        environment |= {"SECRETS_FOLDER": str(self._secrets), "MODELS_FOLDER": str(self._models)}
        project = ("--project-name", "llada-check", "--project-directory", str(ROOT), "--profile", "replicas")
        return self.docker("compose", *project, *files, *words, **environment)

    def obtain_images(self) -> None:
        with self.timed("base image"):
            origin = self.docker.obtain(BASE)
        if origin is None:
            pytest.skip(f"{BASE} can't be pulled, and only an engine of the check's own is given a stand-in")
        self.figures["base image"] += f" ({origin})"
        if self.docker.has_stand_in_base:
            # The stand-in's pip asks this machine, which only the host's network reaches.
            self._override.write_text(json.dumps({"services": {"llada": {"build": {"network": "host"}}}}))
        for service in sorted(SERVICES.keys() - {*REPLICAS, "llada-gpu"}):
            with self.timed(f"{service}'s image"):
                origin = self.docker.obtain(SERVICES[service]["image"])
            self.figures[f"{service}'s image"] += f" ({origin or 'cannot be had: not run'})"
            if origin is not None:
                self.services.append(service)

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.figures[what] = f"{time.monotonic() - started:.1f} s"

    def url(self, service: str, port: int) -> str:
        return f"http://{self.compose('port', service, str(port)).strip()}"

    def container(self, service: str, template: str) -> str:
        container_id = self.compose("ps", "--all", "--quiet", service).strip()
        return self.docker("inspect", "--format", template, container_id).strip()

    def python(self, service: str, code: str) -> str:
        return self.compose("exec", "--no-TTY", service, "python", "-c", code).strip()


@pytest.fixture(scope="module")
def stack(request, tmp_path_factory) -> Iterator[Stack]:
    with docker_engine() as docker:
        stack = Stack(docker, tmp_path_factory.mktemp("docker"))
        try:
            stack.obtain_images()
            with stack.timed("build"):
                stack.compose("build")
            with stack.timed("up to healthy"):
                stack.compose("up", "--detach", "--wait", *stack.services)
            yield stack
        finally:
            stack.compose("down", "--volumes", "--timeout", "40")
            plugin = request.config.pluginmanager.getplugin
            with plugin("capturemanager").global_and_fixture_disabled():
                for what, figure in stack.figures.items():
                    plugin("terminalreporter").write_line(f"\n{what}: {figure}")


@pytest.fixture(scope="module")
def proxy(stack) -> Iterator[httpx.Client]:
    if "proxy" not in stack.services:
        pytest.skip("the proxy's image cannot be had")
    with httpx.Client(base_url=stack.url("proxy", 80), headers=AUTHORIZATION, timeout=60) as client:
        yield client


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict]]:
    """The events of a stream, by name."""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_the_image_holds_a_server_and_no_more(stack):
    size = int(stack.docker("image", "inspect", "--format", "{{.Size}}", "llada-server"))
    stack.figures["image"] = f"{size / 1e6:,.0f} MB"
    assert stack.docker("image", "inspect", "--format", "{{.Config.User}}", "llada-server").strip() == "10001:10001"
    has_cuda = stack.python("llada", "import torch; print(torch.version.cuda)") != "None"
    assert size < 1e9 or has_cuda
    assert stack.python("llada", "import importlib.util as i; print(i.find_spec('training'), i.find_spec('pip'))") == (
        "None None"
    )


def test_every_container_has_its_limits(stack):
    template = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}"
    for service in stack.services:
        memory, processes, is_read_only, dropped = stack.container(service, template).split()
        assert int(memory) > 0 and int(processes) > 0
        assert (is_read_only, dropped) == ("true", "[ALL]")
    memory = stack.docker("stats", "--no-stream", "--format", "{{.Name}}: {{.MemUsage}}").splitlines()
    stack.figures["memory when idle"] = ", ".join(sorted(memory))


def test_caches_take_no_more_than_the_container_may_use(stack):
    lines = httpx.get(f"{stack.url('llada', 8000)}/metrics").text.splitlines()
    (limit,) = (line.split()[1] for line in lines if line.startswith("llada_kv_cache_limit_bytes "))
    assert float(limit) <= int(stack.container("llada", "{{.HostConfig.Memory}}")) / 2


def test_models_of_the_hub_are_kept_on_the_disk_for_all_replicas(stack):
    write = "import os, pathlib; print(pathlib.Path(os.environ['HF_HOME'], 'x').write_text('kept'))"
    assert stack.python("llada", write) == "4"
    assert stack.compose("exec", "llada-2", "sh", "-c", "cat $HF_HOME/x") == "kept"
    assert "tmpfs" not in stack.compose("exec", "llada", "sh", "-c", "df --output=fstype $HF_HOME")


def test_the_key_comes_from_a_file(stack):
    for headers, status in (({}, 401), (AUTHORIZATION, 200)):
        assert httpx.get(f"{stack.url('llada', 8000)}/v1/models", headers=headers).status_code == status


def test_a_chat_completion_through_the_proxy(proxy):
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
    answer = proxy.post("/v1/chat/completions", json=question)
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]


def test_broken_streams_resume_through_the_proxy_whichever_replica_has_them(stack, proxy):
    with proxy.stream("POST", "/v1/denoise", json=BODY) as response:
        *_, (name, whole) = events(response.iter_lines())
    assert name == "done"
    for replica in REPLICAS:
        path = f"/v1/denoise/{stack.python(replica, BREAK_A_STREAM)}"
        until(lambda path=path: proxy.head(path).status_code != 409)
        with proxy.stream("GET", path, headers={"Last-Event-ID": "1"}) as response:
            *steps, (name, done) = events(response.iter_lines())
        assert len(steps) == BODY["steps"] - 1
        assert (name, done["token_ids"]) == ("done", whole["token_ids"])


def test_metrics_are_the_replicas_own(stack, proxy):
    assert proxy.get("/metrics").status_code == 404
    if "prometheus" not in stack.services:
        pytest.skip("Prometheus' image cannot be had")
    prometheus = stack.url("prometheus", 9090)

    def scraped() -> list[str]:
        result = httpx.get(f"{prometheus}/api/v1/query", params={"query": 'up{job="llada"}'}).json()["data"]["result"]
        return [series["value"][1] for series in result]

    until(lambda: scraped() == ["1", "1"], seconds=60)
    (group,) = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    assert group["file"].endswith("alerts.yml")


def test_stopping_lets_running_requests_finish(stack):
    names = []
    url = f"{stack.url('llada', 8000)}/v1/denoise"
    with httpx.stream("POST", url, json=BODY, headers=AUTHORIZATION, timeout=60) as response:
        stream = events(response.iter_lines())
        names.append(next(stream)[0])
        with stack.timed("stop"):
            stopping = threading.Thread(target=stack.compose, args=("stop",))
            stopping.start()
            names += [name for name, _ in stream]
            stopping.join()
    assert names[-1] == "done"
    statuses = {service: stack.container(service, "{{.State.ExitCode}}") for service in stack.services}
    assert set(statuses.values()) == {"0"}, statuses
