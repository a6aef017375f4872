"""Run schemathesis over the whole OpenAPI page with all its checks; `make fuzz` runs all its phases."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_server import ForkedServer

# A schema cannot express everything: fields that exclude each other, ids past the vocabulary and lengths past the
# model's positions get a 400 that names the field; unknown models and streams get a 404.
CONFIG = """
reports.directory = "reports"
[checks]
positive_data_acceptance.expected-statuses = [200, 400, 404]
"""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        ("examples,fuzzing,stateful", 6),
        pytest.param("examples,coverage,fuzzing,stateful", 50, marks=pytest.mark.fuzz),
    ],
)
def test_schemathesis_finds_nothing(tmp_path, phases, examples):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    # A short model bounds every max_tokens and a long queue takes any number of choices, so the page can stay as it is.
    with ForkedServer("--max-model-len", "64", "--max-queue", "100000") as server:
        command = [Path(sys.executable).with_name("st"), "run", f"{server.url}/openapi.json", "--checks", "all"]
        options = ["--phases", phases, "--max-examples", str(examples), "--workers", "2"]
        options += ["--generation-deterministic", "--no-color"]
        process = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "24 selected / 24 total" in process.stdout
