"""Checks of the deployment files that need no container engine."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_the_image_runs_as_a_user_of_its_own_with_a_health_check():
    final_stage = DOCKERFILE.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER (?!root)", final_stage, flags=re.MULTILINE)
    assert "HEALTHCHECK" in final_stage
    assert 'CMD ["llada-server"]' in final_stage


def test_building_pulls_nothing_but_the_base_image():
    assert "# syntax=" not in DOCKERFILE
    assert len(set(re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE))) == 1


def test_everything_the_image_copies_is_in_the_build_context():
    ignore = (ROOT / ".dockerignore").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, flags=re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignore


def test_prometheus_scrapes_the_server_at_its_port():
    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    target = config["scrape_configs"][0]["static_configs"][0]["targets"][0]
    service, port = target.split(":")
    assert service in COMPOSE["services"]
    assert f"LLADA_PORT={port}" in DOCKERFILE
    assert any(mapping.endswith(f":{port}") for mapping in COMPOSE["services"][service]["ports"])
    mounted = COMPOSE["services"]["prometheus"]["volumes"][0].split(":")[0]
    assert (ROOT / mounted).exists()


def test_every_variable_that_compose_passes_on_is_an_option():
    from server.settings import Settings

    for entry in COMPOSE["services"]["llada"]["environment"]:
        assert entry.partition("=")[0].removeprefix("LLADA_").lower() in Settings.model_fields


def test_prometheus_reaches_the_server_under_a_name_that_it_answers_to():
    from server.http.browser import BrowserGuard

    config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())
    target = config["scrape_configs"][0]["static_configs"][0]["targets"][0]
    (entry,) = (e for e in COMPOSE["services"]["llada"]["environment"] if e.startswith("LLADA_ALLOWED_HOST="))
    allowed = entry.partition("=")[2].partition("$")[0]
    assert BrowserGuard(None, "0.0.0.0", [allowed], [])._is_own(target)


def test_the_lock_holds_versions_only():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+", line), line
