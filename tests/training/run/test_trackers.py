"""Weights & Biases, offline: the figures of a run, also of one that was resumed. TensorBoard's are in test_trainer."""

import json
import struct
import sys

import pytest

from tests.training.conftest import llada_train, losses, records, succeed


def test_without_wandb_an_error_says_what_to_install(workspace, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    outcome = llada_train(*workspace.pretrain(tmp_path / "out", "--wandb-project", "trial"))
    assert outcome.returncode == 1
    assert "--wandb-project needs wandb: pip install 'llada[wandb]'" in outcome.stderr


@pytest.mark.clients
def test_a_run_and_its_resumption_are_one_run_with_every_figure(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "out"
    options = [
        "--wandb-project",
        "trial",
        "--val-size",
        20,
        "--eval-samples",
        4,
        "--eval-prompt",
        "The",
        "--keep-last",
        3,
    ]
    succeed(*workspace.pretrain(out, *options))
    run_id = (out / "wandb" / "run-id").read_text()
    succeed(*workspace.pretrain(out, *options, "--resume-from", 8))
    runs = sorted((out / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 2 and all(run_id in run.name for run in runs)
    first, resumed = (history(run) for run in runs)
    assert {row["step"]: row["loss"] for row in first if "loss" in row} == pytest.approx(losses(out))
    assert min(row["step"] for row in resumed) > 8
    logged = {name for row in first for name in row}
    expected = set()
    for record in records(out):
        for name, value in record.items():
            expected |= {f"{name}/{part}" for part in value} if isinstance(value, dict) else {name}
    assert expected <= logged and "answers/The" in logged


def history(file):
    """The rows that were logged, from the file that `wandb sync` would send."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for message in messages(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(message)
        items = record.history.item
        if items:
            rows.append({item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def messages(content):
    """The messages of a LevelDB log: fragments in blocks of 32 KiB, each after checksum, length and kind."""
    place, message = 7, b""  # wandb's own head
    while place + 7 <= len(content):
        length, kind = struct.unpack_from("<HB", content, place + 4)
        message += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield message
            message = b""
        if (left := -place % 32768) < 7:
            place += left
