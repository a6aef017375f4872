"""Fixtures shared by the packages' tests."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llada_core import DEMO_FOLDER, load_checkpoint, load_model, load_tokenizer
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.model.interface import MaskPredictor
from llada_core.model.network import Network
from llada_core.text.tokenizer import Tokenizer
from tests.live_server import ForkedServer

GOLDEN = Path(__file__).parent / "golden"
GOLDEN_CASES: dict[str, list[dict[str, Any]]] = json.loads((GOLDEN / "cases.json").read_text())

torch.set_num_threads(1)

# Every new HTTP client reads the certificates of all authorities, for 25 to 80 ms; no test speaks TLS. A folder without
# any costs nothing.
os.environ.pop("SSL_CERT_FILE", None)
os.environ["SSL_CERT_DIR"] = str(GOLDEN)

_TARGETS = {
    "clients": "`make test-clients` installs what they need, 300 MB, and runs them",
    "cluster": "`make test-cluster` installs Ray, 350 MB, and runs them",
    "docker": "`make docker-check` builds and runs the containers, for minutes",
    "fuzz": "`make fuzz` runs them, for minutes",
    "chaos": "`make chaos` runs them, for minutes",
    "monitoring": "`make monitoring-check` runs them, for a minute or two",
}
_NOT_RUN: Counter[str] = Counter()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember what `-m` left out."""
    _NOT_RUN.update(marker.name for item in items for marker in item.iter_markers() if marker.name in _TARGETS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from a worker of pytest-xdist what it left out; all workers leave out the same."""
    _NOT_RUN.update(Counter(node.workeroutput.get("not_run", {})) - _NOT_RUN)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what was not run, and why; skips and their reasons are listed by pytest itself."""
    for name, count in _NOT_RUN.items():
        terminalreporter.write_line(f"not run: {count} marked {name!r}; {_TARGETS[name]}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything must have run: a skip is a failure."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = dict(_NOT_RUN)
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def golden_networks() -> dict[str, Network]:
    """The two tiny checkpoints of the golden vectors, float32, as networks that can be trained."""
    return {folder.name: load_checkpoint(folder).eval() for folder in (GOLDEN / "models").iterdir()}


@pytest.fixture(scope="session")
def golden_models() -> dict[str, MaskPredictor]:
    """The same checkpoints as they are served."""
    return {folder.name: load_model(folder) for folder in (GOLDEN / "models").iterdir()}


@pytest.fixture(scope="session")
def tiny_network(golden_networks: dict[str, Network]) -> Network:
    """A network small enough for anything."""
    return golden_networks["tiny-mha"]


@pytest.fixture(scope="session")
def tiny(golden_models: dict[str, MaskPredictor]) -> MaskPredictor:
    """A model small enough for anything, as it is served."""
    return golden_models["tiny-mha"]


@pytest.fixture(scope="session")
def demo() -> MaskPredictor:
    """The bundled model, as it is served."""
    return load_model(DEMO_FOLDER)


@pytest.fixture(scope="session")
def babbler(demo: MaskPredictor) -> MaskPredictor:
    """Random weights for the demo model's tokenizer: each answer is noise, at a quarter of the demo model's cost."""
    torch.manual_seed(0)
    config = LLaDAConfig(
        d_model=32,
        n_heads=2,
        n_layers=2,
        mlp_hidden_size=64,
        vocab_size=demo.shape.vocab_size,
        max_sequence_length=demo.shape.max_sequence_length,
    )
    weights, names = Network(config).state_dict(), config.describe().names
    # A standard deviation of 1: the confidence then differs from position to position, as a trained model's does.
    weights[names.tensor("head")].mul_(config.d_model**0.5)
    return CPUMaskPredictor(
        config,
        demo.special_tokens,
        lambda role, depth: weights[names.tensor(role, depth)],
        dtype=torch.float32,
        quantization="none",
    )


@pytest.fixture(scope="session")
def demo_tokenizer() -> Tokenizer:
    tokenizer = load_tokenizer(DEMO_FOLDER)
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="session")
def live_server() -> Iterator[str]:
    """The base URL of a real `llada-server` process with the demo model."""
    with ForkedServer() as server:
        yield server.url


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """From the root, as the paths of lm-eval's tasks are; what `datasets` writes goes into the test's own folder."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
