"""The benchmark of contention stops what it started and compares what it says."""

from pathlib import Path

import psutil

from benchmarks import contention


def test_busy_loops_end_with_their_block() -> None:
    with contention.busy(2):
        running = [child for child in psutil.Process().children() if "while True" in " ".join(child.cmdline())]
        assert len(running) == 2
    assert not any(child.is_running() for child in running)


def test_speed_is_samples_by_the_seconds_that_more_steps_take(monkeypatch) -> None:
    def seconds(data: Path, output: Path, steps: int, policy: str) -> float:
        assert data.read_text().count("\n") == 990
        return 5.0 + steps / 4

    monkeypatch.setattr(contention, "_cpu_seconds", seconds)
    assert contention.training_speed(60, "PASSIVE") == 4 * 32
