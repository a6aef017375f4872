from io import StringIO

import pytest
from rich.console import Console
from rich.text import Text

from tests.training.conftest import records, succeed
from training.run.report import Reporter


def test_a_run_leaves_metrics_a_picture_and_tensorboard_files(workspace, tmp_path):
    out = tmp_path / "out"
    printed = succeed(
        *workspace.sft(out), "--val-data-path", workspace.folder / "sft.jsonl", "--eval-samples", 8,
        "--eval-prompt", "After 7?", "--eval-gen-length", 8,
    )  # fmt: skip
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert list((out / "tensorboard").iterdir())
    metrics = records(out)
    assert [record["step"] for record in metrics if "loss" in record] == list(range(1, 13))
    assert {"lr", "gradient_norm", "tokens_per_second", "loss_by_noise_level"} <= metrics[1].keys()
    assert [record["step"] for record in metrics if "val_loss" in record] == [0, 4, 8, 12]
    assert printed.count("'After 7?' →") == 4


def test_the_progress_bar_fits_80_columns_and_has_one_time_left(tmp_path, monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(
        "training.run.report.Console",
        lambda **options: Console(**{**options, "file": screen}, width=80, force_terminal=True),
    )
    reporter = Reporter(tmp_path, is_main=True)
    with reporter.run(first_step=0, max_steps=100_000):
        reporter.log(
            {"step": 99_999, "loss": 1.0}, "a long line", figures="loss 12.3456  lr 1.00e-03  123,456 tokens/s"
        )
        reporter.advance(99_999)
    shown = Text.from_ansi(screen.getvalue()).plain
    line = next(line for line in shown.splitlines() if "99999/100000" in line)
    assert "loss 12.3456  lr 1.00e-03  123,456 tokens/s" in line and "…" not in line
    assert len(line.rstrip()) <= 80 and line.count(":") == 2
    assert "a long line" not in shown


@pytest.mark.parametrize(
    "line", [b"", b"\0\0\0", b"{", b"[1]", b'{"loss": 1}', b'{"step": "x"}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_line_of_the_metrics_is_passed_over(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n{"step": 3')
    assert Reporter(tmp_path, is_main=True).records() == [{"step": 1}, {"step": 2}]
