"""schemathesis over the whole OpenAPI page, with every check that it has; `make fuzz` runs all its phases."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_server import LiveServer

# What the schema cannot say is refused with 400 and a name: fields that exclude each other, ids past the vocabulary,
# more positions than the model has. 404: the model or stream asked for.
CONFIG = """
reports.directory = "reports"
[checks]
positive_data_acceptance.expected-statuses = [200, 400, 404]
"""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("phases", "examples"),
    [
        ("examples,fuzzing,stateful", 10),
        pytest.param("examples,coverage,fuzzing,stateful", 50, marks=pytest.mark.fuzz),
    ],
)
def test_schemathesis_finds_nothing(tmp_path, phases, examples):
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    # A short model bounds every max_tokens, so that the page can be tried as it is; no number of choices is too many.
    with LiveServer("--max-model-len", "64", "--max-queue", "100000") as server:
        command = [Path(sys.executable).with_name("st"), "run", f"{server.url}/openapi.json", "--checks", "all"]
        options = ["--phases", phases, "--max-examples", str(examples), "--workers", "2"]
        options += ["--generation-deterministic", "--no-color"]
        found = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "15 selected / 15 total" in found.stdout
