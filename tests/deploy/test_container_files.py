"""Checks of the deployment files that need no container engine."""

import functools
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.docker_engine import NO_COMPOSE, ROOT, has_compose
from tests.server.conftest import serving

DOCKERFILE = (ROOT / "Dockerfile").read_text()
FINAL_STAGE = DOCKERFILE.rsplit("\nFROM ", 1)[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
SERVERS = [name for name in SERVICES if name.startswith("llada")]
PORT = 8000


def names_in_the_network(service: str) -> set[str]:
    return {service, *SERVICES[service].get("networks", {}).get("default", {}).get("aliases", [])}


def test_the_image_runs_as_a_user_with_a_number():
    (user,) = re.findall(r"^USER (.*)", FINAL_STAGE, flags=re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"--uid {user.partition(':')[0]} " in FINAL_STAGE
    assert 'CMD ["llada-server"]' in FINAL_STAGE


def test_the_health_check_passes_while_a_server_listens_and_only_then(tiny):
    (command,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.*?\])$", FINAL_STAGE, flags=re.MULTILINE | re.DOTALL)
    python, *words = json.loads(command)
    assert python == "python"
    with serving(tiny) as url:
        environment = {**os.environ, "LLADA_PORT": url.rpartition(":")[2]}
        check = functools.partial(subprocess.run, [sys.executable, *words], env=environment, stderr=subprocess.DEVNULL)
        assert check().returncode == 0
    assert check().returncode == 1


def test_building_pulls_nothing_but_the_base_image():
    assert "# syntax=" not in DOCKERFILE
    assert len(set(re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE))) == 1


def test_the_build_context_is_what_the_image_copies():
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert ignored[0] == "*"


def test_the_image_lock_is_the_servers_part_of_the_lock_with_hashes():
    lock = (ROOT / "deploy" / "image.lock").read_text()
    entries = re.findall(r"^(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)$", lock, flags=re.MULTILINE)
    assert "".join(f"{package}{hashes}\n" for package, hashes in entries) == lock
    packages = {package for package, _ in entries}
    assert packages <= set((ROOT / "requirements.lock").read_text().split()), "run `make image-lock`"
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = closure(tomllib.load(file)["project"]["dependencies"])
    missing = needed - {package.partition("==")[0] for package in packages}
    assert missing == {"torch"}, "run `make image-lock`"


def closure(requirements: list[str]) -> set[str]:
    """The names of all packages that these ask for on this machine, without those that CUDA adds to torch."""
    names: set[str] = set()
    ahead = [Requirement(text) for text in requirements]
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        is_needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_needed and name not in names and not re.match(r"cuda-|nvidia-|triton$", name):
            names.add(name)
            ahead += map(Requirement, requires(name) or [])
    return names


def test_the_lock_holds_versions_only():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", line), line


@pytest.mark.parametrize(
    ("profile", "servers"), [(None, ["llada"]), ("replicas", ["llada", "llada-2"]), ("gpu", ["llada-gpu"])]
)
def test_docker_compose_accepts_the_file_and_a_profile_has_its_servers(profile, servers):
    if not has_compose():
        pytest.fail(NO_COMPOSE) if os.environ.get("CI") == "true" else pytest.skip(NO_COMPOSE)
    words = ["docker", "compose", *(["--profile", profile] if profile else []), "config", "--services"]
    environment = {name: value for name, value in os.environ.items() if name != "COMPOSE_PROFILES"}
    done = subprocess.run(words, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(name for name in done.stdout.split() if name in SERVERS) == servers
    assert {"prometheus", "grafana"} <= set(done.stdout.split())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_limits_and_is_published_on_this_machine_only(service):
    definition = SERVICES[service]
    assert definition["mem_limit"] and definition["pids_limit"]
    assert definition["read_only"] and definition["cap_drop"] == ["ALL"]
    assert all(":size=" in mount for mount in definition["tmpfs"])
    assert all(mapping.startswith("127.0.0.1:") for mapping in definition.get("ports", []))


def test_every_file_that_is_mounted_exists_and_every_volume_is_declared():
    mounted = {mount.split(":")[0] for definition in SERVICES.values() for mount in definition.get("volumes", [])}
    files = {source for source in mounted if source.startswith("./")}
    assert all((ROOT / source).exists() for source in files)
    # A source in the environment is the user's own folder.
    assert {source for source in mounted - files if not source.startswith("$")} == set(COMPOSE["volumes"])


def test_the_models_of_the_hub_are_kept_in_a_volume():
    (folder,) = re.findall(r"HF_HOME=(\S+)", DOCKERFILE)
    for server in SERVERS:
        assert f"model-cache:{folder}" in SERVICES[server]["volumes"]


def test_every_variable_that_compose_passes_on_is_an_option():
    from server.settings import Settings

    for server in SERVERS:
        for entry in SERVICES[server]["environment"]:
            assert entry.partition("=")[0].removeprefix("LLADA_").lower() in Settings.model_fields


def test_prometheus_finds_every_server_at_its_port():
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    (lookup,) = config["scrape_configs"][0]["dns_sd_configs"]
    assert lookup["port"] == PORT
    assert f"LLADA_PORT={PORT}" in DOCKERFILE
    for server in SERVERS:
        assert names_in_the_network(server) >= set(lookup["names"])


def test_the_proxy_names_the_replicas():
    upstream = re.findall(r"^    server (\S+):(\d+);", (ROOT / "deploy" / "nginx.conf").read_text(), flags=re.MULTILINE)
    replicas = [server for server in SERVERS if "replicas" in SERVICES[server]["profiles"]]
    assert sorted(SERVICES["proxy"]["depends_on"]) == replicas
    for replica, (name, port) in zip(replicas, upstream, strict=True):
        assert name in names_in_the_network(replica)
        assert int(port) == PORT


def test_grafana_finds_its_dashboards_where_compose_mounts_them_and_nobody_can_log_in():
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/llada.yml").read_text())["providers"]
    grafana = SERVICES["grafana"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    for switch in ("GF_AUTH_DISABLE_LOGIN_FORM", "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"):
        assert grafana["environment"][switch] == "true"
