"""Benchmarks run and measure what they say. No figure is asserted: a test must not depend on the machine's speed."""

import asyncio
import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from benchmarks import (
    board,
    constraints,
    dispatch,
    gpu_check,
    inference,
    large,
    lengths,
    machine,
    prefix,
    questions,
    server,
)
from llada_core import load_model
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens, Rows
from tests.live_server import ForkedServer
from tests.vocabularies import vocabulary_of


class ForkedMeasuredServer(server.MeasuredServer, ForkedServer):
    """Measured as a server in a new interpreter is, which would import for seconds."""


@pytest.mark.parametrize("size", ["tiny", "tiny mixture"])
def test_the_inference_benchmark_compares_equal_canvases(size, monkeypatch):
    # Four blocks, as in the benchmark; a quarter of its steps.
    monkeypatch.setattr(inference, "GEN_LENGTH", 32)
    monkeypatch.setattr(inference, "BLOCK_LENGTH", 8)
    found = inference.measure(size, 8, print)
    assert found["float32_steps_equal_to_reference"] == 8
    assert {name: figures["steps_run"] for name, figures in found["candidates"].items()} == {
        "reference float32": 8,
        "reference bfloat16": 8,
        **dict.fromkeys(inference.OURS, 32),
    }
    assert all(figures["generation_cpu_s"] > 0 for figures in found["candidates"].values())


def test_the_prefix_benchmark_reuses_the_first_turn():
    found = prefix.measure(prefix.random_model(prefix.SIZES["tiny"], "float32"), 32, 1)
    assert found.keys() == {f"{name}_cpu_s" for name in ("without", "with", "into_pool", "out_of_pool")}
    assert all(seconds > 0 for seconds in found.values())


def test_the_server_benchmark_counts_every_step_of_every_client(tmp_path):
    server.save_random_model(inference.SIZES["tiny"], tmp_path)
    with ForkedMeasuredServer("--model", str(tmp_path)) as running:
        found = asyncio.run(server.load(running, server.MIXED, clients=3, rounds=2, path="/v1/denoise"))
        assert running.peak_bytes() > 0
    assert found.steps == 3 * 2 * server.STEPS
    assert len(found.latencies_s) == len(found.first_token_s) == 6
    assert all(first <= whole for first, whole in zip(found.first_token_s, found.latencies_s, strict=True))
    assert server.core_cpu_seconds(load_model(tmp_path), 2) > 0


def test_the_boards_smoke_asks_every_task_and_writes_nothing(tmp_path):
    app = typer.Typer()
    app.command()(board.main)
    ran = CliRunner().invoke(app, ["--smoke", "--output-dir", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert [row.split("  ")[0] for row in ran.output.splitlines()[:-1]] == board.SMOKE
    assert not list(tmp_path.iterdir())
    assert set(questions.card_tasks(1, 1)) > {questions.STORIES, "capitals", "sums"}


def made_up(right, passes, precision="float32"):
    return {
        "precision": precision,
        "params": {},
        "right": {"sums": right},
        "forward_passes": {"sums": passes},
        "tokens": {"sums": 1},
        "cpu_s": {"sums": passes / 10},
    }


def test_the_front_leaves_out_what_is_slower_and_no_better():
    found = {
        board.EXACT: made_up([1] * 40, 100),
        "good": made_up([1] * 40, 50),
        "slow": made_up([1] * 39 + [0], 60),
        "fast": made_up([1] * 39 + [0], 20),
        "bad": made_up([1] * 20 + [0] * 20, 10),
    }
    assert board.front(found) == ["good", "fast", "bad"]
    # From 1 to 2 at full accuracy, from 2 to 5 with the losses weighed; what loses half counts for nothing.
    weighed = 0.975 * math.exp(-3 * 0.025)
    assert board.area(found) == pytest.approx(1 + 3 * (1 + weighed) / 2)
    assert board.area(found | {"rounded": made_up([1] * 40, 1, "int8")}) == board.area(found)


def test_two_settings_are_compared_question_by_question():
    mean, error = board.difference([1, 1, 0, 1], [1, 0, 1, 1])
    assert (mean, error) == (0, pytest.approx(math.sqrt(2 / 3 / 4)))
    assert board.difference([1, 0], [1, 0]) == (0, 0)
    assert board.difference([1], [0]) == (1, 0)


def test_the_benchmark_of_constraints_denoises_with_every_kind_of_model():
    found = constraints.measure(constraints.PATTERNS["date"], vocabulary_of(1024))
    assert found["shortest"] <= 10
    assert found["step_ms"].keys() == constraints.KINDS.keys()
    assert all(0 < step["mean"] <= step["max"] for step in found["step_ms"].values())


def test_the_benchmark_of_lengths_times_every_kind():
    for kind in lengths.KINDS:
        found = lengths.measure(inference.SIZES["tiny"], kind, [48, 64])
        assert list(found) == ["48", "64"]
        for figures in found.values():
            halves = [lengths.share(figures, kind, dict.fromkeys(lengths.KINDS, speed)) for speed in (1.0, 2.0)]
            assert halves[0] == 2 * halves[1] > 0


def test_the_benchmark_of_dispatch_runs_both_models(monkeypatch):
    monkeypatch.setattr(dispatch, "SMALL", inference.SIZES["tiny"])
    monkeypatch.setattr(dispatch, "EMPTY", inference.SIZES["tiny"])
    monkeypatch.setattr(dispatch, "GEN_LENGTH", 4)
    found = dispatch.measure("float32")
    assert set(found) == {"whole", "cached"}
    assert all(figures["step_ms"] > 0 < figures["empty_ms"] for figures in found.values())


def test_multiply_adds_are_those_of_the_models_products(monkeypatch):
    shape, length = {**inference.SIZES["tiny"], "n_kv_heads": 2}, 48
    counted = FlopCounterMode(display=False)
    config = LLaDAConfig(**shape)
    model = Network(config).eval()
    packed = PackedTokens(torch.zeros(length, dtype=torch.long), (length,))
    rows = Rows.of(packed, [np.arange(lengths.BLOCK_LENGTH)])
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, _bias: (q @ k.mT).softmax(-1) @ v)
    with torch.inference_mode(), counted:
        model.head(model.hidden_states(packed, rows))
    assert 2 * sum(lengths.multiply_adds(config, length)) == counted.get_total_flops()


def test_the_benchmark_of_large_models_runs_on_a_tiny_one_and_deletes_its_weights(tmp_path, monkeypatch):
    options = ["--smoke", "--kinds", "int8", "--lengths", "64", "--folder", str(tmp_path / "weights")]
    app = typer.Typer()
    app.command()(large.main)
    monkeypatch.setattr(large, "MeasuredServer", ForkedMeasuredServer)
    tried = CliRunner().invoke(app, [*options, "--output-dir", str(tmp_path)])
    assert tried.exit_code == 0, tried.output
    figures = json.loads((tmp_path / "large.json").read_text())["kinds"]["int8"]
    assert figures["load_cpu_s"] > 0 < figures["load_peak_gb"]
    assert figures["steps"]["64"]["health_checks"] > 0
    assert figures["steps"]["64"]["cached_cpu_s"] is not None
    assert list((tmp_path / "weights").iterdir()) == []


def test_the_benchmark_of_large_models_says_what_does_not_fit(tmp_path, monkeypatch):
    app = typer.Typer()
    app.command()(large.main)
    options = ["--smoke", "--folder", str(tmp_path / "weights"), "--output-dir", str(tmp_path)]
    monkeypatch.setattr(large, "_MORE_MEMORY", 1 << 60)
    tried = CliRunner().invoke(app, options)
    assert "bfloat16 skipped" in tried.output and "int8 skipped" in tried.output
    monkeypatch.setattr(large.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 10, 0))
    assert "too little free space" in CliRunner().invoke(app, options).output
    assert not (tmp_path / "large.json").exists()


def test_results_name_the_machine_and_the_commit(tmp_path):
    file = machine.write("example", {"machine": machine.describe()}, tmp_path)
    described = json.loads(file.read_text())["machine"]
    assert {"processor", "cores", "torch", "commit", "giga_operations_per_second_and_thread"} <= described.keys()


def test_the_gpu_check_runs_on_a_cpu_and_says_when_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "BATCH_SIZES", (1, 2))
    runner = CliRunner()
    app = typer.Typer()
    app.command()(gpu_check.main)
    tried = runner.invoke(app, ["--device", "cpu", "--sizes", "tiny", "--output-dir", str(tmp_path)])
    assert tried.exit_code == 0, tried.output
    checks = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert len(checks) == 8
    if not torch.cuda.is_available():
        refused = runner.invoke(app, [])
        assert refused.exit_code == 2
        assert "no CUDA device" in refused.output
