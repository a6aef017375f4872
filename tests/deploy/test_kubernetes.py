"""The Kubernetes manifest: valid by the schema, and true to the server and the image."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server.engine.metrics import Metrics
from server.replies.parking import PARKING_SECONDS
from server.routes import system
from server.settings import Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
DEPLOYMENT, *_ = DOCUMENTS
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
ENVIRONMENT = {entry["name"]: entry for entry in CONTAINER["env"]}


def find(kind: str, name: str = "llada") -> dict[str, Any]:
    (document,) = (d for d in DOCUMENTS if d["kind"] == kind and d["metadata"]["name"] == name)
    return document["spec"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document["kind"])
def test_every_document_obeys_the_schema(document):
    kubernetes_validate.validate(document, "1.37", strict=True)


def test_every_variable_is_an_option_and_no_other_comes_from_kubernetes():
    options = {name.removeprefix("LLADA_").lower() for name in ENVIRONMENT if name.startswith("LLADA_")}
    assert options <= Settings.model_fields.keys()
    # The links of a Service named "llada" would set LLADA_PORT.
    assert POD["enableServiceLinks"] is False


def test_probes_ask_routes_of_the_server_at_its_port():
    routes = {route.path for route in system.router.routes}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[probe]["httpGet"]["path"] in routes
        assert CONTAINER[probe]["httpGet"]["port"] == CONTAINER["ports"][0]["name"]
    assert f"LLADA_PORT={CONTAINER['ports'][0]['containerPort']}" in (ROOT / "Dockerfile").read_text()


def test_a_pod_has_time_to_finish_its_requests():
    uvicorn_closes = int(re.search(r"timeout_graceful_shutdown=(\d+)", (ROOT / "server" / "cli.py").read_text())[1])
    needed = (
        CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
        + float(ENVIRONMENT["LLADA_SHUTDOWN_GRACE"]["value"])
        + uvicorn_closes
    )
    assert POD["terminationGracePeriodSeconds"] > needed


def test_a_client_keeps_its_pod_for_as_long_as_a_stream_can_be_resumed():
    service = find("Service")
    assert service["sessionAffinity"] == "ClientIP"
    seconds = service["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]
    assert seconds > Settings.model_fields["request_timeout"].default + PARKING_SECONDS


def test_pods_are_scaled_by_a_metric_of_the_server():
    scaler = find("HorizontalPodAutoscaler")
    assert scaler["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert "replicas" not in DEPLOYMENT["spec"]
    (metric,) = scaler["metrics"]
    assert f"\n{metric['pods']['metric']['name']} " in Metrics().render(is_ready=True).decode()


def test_everything_selects_the_pods():
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    services = (find("Service"), find("Service", "llada-pods"))
    selectors = [DEPLOYMENT["spec"]["selector"], find("PodDisruptionBudget")["selector"]]
    assert all(service["selector"] == labels for service in services)
    assert all(selector["matchLabels"] == labels for selector in selectors)


def test_the_pod_is_the_user_of_the_image():
    (uid,) = re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert POD["securityContext"]["runAsUser"] == int(uid)
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"] is True
