"""The benchmark of peers, without any of them installed."""

import json
import sys

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from benchmarks import inference, server
from benchmarks.peers import __main__ as command
from benchmarks.peers import measuring, peer
from benchmarks.peers.known import PEERS
from llada_core.files import read_json
from llada_core.model.architectures.llada.config import LLaDAConfig
from tests.reference.llada import ReferenceModel

FAKE = peer.Peer("fake", "tests.benchmarks.fake_peer", "llamacpp.txt", {}, {"exact": 0.001, "shifted": 0.001})


def run(*options):
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, [str(option) for option in options])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    server.save_random_model(inference.SIZES["tiny"], folder)
    return folder


class Reference:
    """The published network in this process; kinds other than `exact` are off by a constant."""

    version = "as published"

    def __init__(self, checkpoint):
        weights = load_file(checkpoint / "model.safetensors")
        self._model = ReferenceModel(LLaDAConfig.from_dict(read_json(checkpoint / "config.json")), weights)
        self.asked = []

    def cpu_seconds(self, kind, token_ids, logits_file=None):
        self.asked.append(kind)
        if logits_file is not None:
            logits_TV = self._model(torch.tensor([token_ids]))[0].numpy()
            np.save(logits_file, logits_TV + (kind != "exact"))
        return 0.5


def test_a_peer_that_is_not_installed_is_named_and_nothing_is_written(tmp_path):
    ran = run("--environments", tmp_path / "none", "--output-dir", tmp_path)
    assert ran.exit_code == 0, ran.output
    assert [f"{peer.name} skipped" in ran.output for peer in PEERS] == [True] * len(PEERS)
    assert "python -m benchmarks.peers --install" in ran.output
    assert not list(tmp_path.iterdir())


def test_a_peer_that_computes_something_else_is_not_timed(checkpoint):
    reference = Reference(checkpoint)
    found = measuring.measure(checkpoint, [(FAKE, reference)], rounds=2)
    assert found["candidates"]["fake exact"]["difference"] < 1e-5
    # The comparison, the round that warms up, two rounds.
    assert reference.asked.count("exact") == 4 and reference.asked.count("shifted") == 1
    assert found["candidates"]["fake exact"]["turns_ms"] == [500, 500]
    assert list(found["refused"]) == ["fake shifted"]
    ours = found["candidates"].keys() - {"fake exact"}
    assert ours == {name for kind in measuring.KINDS for name in (kind, f"{kind}, one block")}
    assert all(found["candidates"][name]["cpu_ms"] > 0 for name in ours)


def test_logits_that_are_not_numbers_are_refused(checkpoint, monkeypatch):
    monkeypatch.setattr(measuring, "difference", lambda *logits: float("nan"))
    found = measuring.measure(checkpoint, [(FAKE, Reference(checkpoint))], rounds=1)
    assert list(found["refused"]) == ["fake exact", "fake shifted"]


def test_a_peers_process_answers_with_seconds_and_logits_and_says_how_it_ended(tmp_path):
    log, logits_file = tmp_path / "log", tmp_path / "logits.npy"
    with peer.PeerProcess([sys.executable, "-m", FAKE.worker], log) as process:
        assert process.version == "1.2.3"
        assert process.cpu_seconds("any", [3, 4, 5], logits_file) >= 0
        assert np.load(logits_file).tolist() == [[3, 3], [4, 4], [5, 5]]
        logits_file.unlink()
        assert process.cpu_seconds("any", [3]) >= 0 and not logits_file.exists()
        for _ in range(2):
            with pytest.raises(peer.PeerError, match="status 1; its last words: no such weights"):
                process.cpu_seconds("broken", [3])
    assert "printed by a library" in log.read_text()


def test_the_command_starts_what_is_installed_and_writes_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PEERS", (FAKE,))
    monkeypatch.setattr(peer.Peer, "start", lambda peer, environments, checkpoint, scratch: Started(checkpoint))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/installed.txt").write_text(FAKE.pinned())
    ran = run("--environments", tmp_path, "--output-dir", tmp_path, "--sizes", "tiny", "--rounds", 1)
    assert ran.exit_code == 0, ran.output
    assert "fake as published" in ran.output and "fake shifted not timed" in ran.output
    assert (
        json.loads((tmp_path / "peers.json").read_text())["sizes"]["tiny"]["candidates"]["fake exact"]["cpu_ms"] == 500
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fake", "peers.json"]


class Started(Reference):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_an_environment_with_other_versions_is_not_taken_and_a_failed_installation_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PEERS", (FAKE,))
    monkeypatch.setattr(peer.venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    calls = []

    def pip(arguments, env, check):
        calls.append(arguments)
        return peer.subprocess.CompletedProcess(arguments, returncode=int(len(calls) == 1))

    monkeypatch.setattr(peer.subprocess, "run", pip)
    failed = run("--install", "--environments", tmp_path)
    assert failed.exit_code == 1 and "pip ended with status 1" in failed.output
    assert not FAKE.is_installed(tmp_path)
    (tmp_path / "fake").rmdir()
    assert run("--install", "--environments", tmp_path).exit_code == 0
    assert FAKE.is_installed(tmp_path)
    assert run("--install", "--environments", tmp_path).exit_code == 0 and len(calls) == 2
    (tmp_path / "fake/installed.txt").write_text("another==1\n")
    assert not FAKE.is_installed(tmp_path)


def test_every_requirement_of_a_peer_ispinned():
    for known in PEERS:
        assert known.tolerances
        assert all("==" in line for line in known.pinned().splitlines())
