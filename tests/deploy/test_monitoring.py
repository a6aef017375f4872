"""The files for Prometheus and Grafana, by promtool and against the documents; test_monitoring_live.py runs them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "llada.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: install Debian's prometheus")
@pytest.mark.parametrize(
    "words", [("check", "config", "deploy/prometheus.yml"), ("test", "rules", "tests/deploy/alerts_test.yml")], ids=str
)
def test_promtool_accepts_the_configuration_and_each_alert_fires_when_it_should(words):
    result = subprocess.run(["promtool", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_alert_has_a_runbook_and_a_test():
    assert len(RULES) == 5
    tests = (ROOT / "tests" / "deploy" / "alerts_test.yml").read_text()
    for rule in RULES:
        name = rule["alert"]
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{name.lower()}"
        assert f"\n### {name}\n" in DOCUMENT
        assert f"alertname: {name}," in tests


def test_rules_and_dashboard_name_only_metrics_that_are_documented():
    documented = set(re.findall(r"^\| `(llada_\w+)`", DOCUMENT, re.MULTILINE))
    for query in (*QUERIES.values(), *(rule["expr"] for rule in RULES)):
        names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bllada_\w+", query)}
        assert names <= documented, query


def test_runbooks_name_panels_of_the_dashboard():
    titles = {panel["title"] for panel in DASHBOARD["panels"]}
    runbooks = DOCUMENT[DOCUMENT.index("### LladaNotReady") :]
    # What is in italics is a panel, except the first sentence of each.
    named = re.findall(r"\*([^*]+)\*", re.sub(r"^\*[^*]+\*", "", runbooks, flags=re.MULTILINE))
    assert len(named) >= 5
    assert set(named) <= titles


def test_the_dashboard_finds_the_data_source_that_is_provisioned():
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    uids = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"] if "datasource" in panel}
    assert uids == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "llada.yml").read_text())["providers"]
    assert provider["options"]["path"] in DOCUMENT
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
