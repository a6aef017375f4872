from tests.training.conftest import llada_train, losses, records, succeed


def test_accumulating_micro_batches_equals_the_whole_batch(workspace, tmp_path):
    options = ["--batch-size", 8, "--dtype", "float32"]
    for stage in (workspace.pretrain, workspace.sft):
        name = stage.__name__
        succeed(*stage(tmp_path / f"{name}-8", *options))
        succeed(*stage(tmp_path / f"{name}-4x2", *options, "--micro-batch-size", 2))
        whole, parts = (losses(tmp_path / f"{name}-{size}") for size in ("8", "4x2"))
        assert max(abs(whole[step] - parts[step]) for step in whole) < 1e-4


def test_the_loss_falls(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out", "--max-steps", 80, "--learning-rate", 1e-2, "--batch-size", 16))
    curve = losses(tmp_path / "out")
    first, last = ([curve[step] for step in steps] for steps in (range(1, 11), range(71, 81)))
    assert sum(last) < 0.8 * sum(first)


def test_the_mean_loss_of_a_noise_level_is_reported_for_every_level_that_occurred(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out", "--batch-size", 16, "--max-steps", 4))
    levels = [record["loss_by_noise_level"] for record in records(tmp_path / "out")]
    assert all(0 < float(level) <= 1 for record in levels for level in record)
    assert len({level for record in levels for level in record}) == 10


def test_a_loss_that_is_not_finite_stops_with_step_and_checkpoint(workspace, tmp_path):
    result = llada_train(*workspace.pretrain(tmp_path / "out", "--learning-rate", 1e38, "--warmup-steps", 0))
    assert result.returncode == 1
    assert "is not finite in step" in result.stderr
    assert "last good checkpoint: none yet" in result.stderr


def test_validation_begins_at_step_0_and_does_not_wait_for_a_checkpoint(workspace, tmp_path):
    out = tmp_path / "out"
    options = ["--val-data-path", workspace.folder / "pretrain.jsonl", "--eval-samples", 2, "--eval-steps", 3]
    printed = succeed(*workspace.pretrain(out, *options, "--save-steps", 4, "--keep-last", 9))
    measured = [record["step"] for record in records(out) if "val_loss" in record]
    assert measured == [0, 3, 6, 9, 12]
    # Of the steps that were saved (4, 8 and 12) only the last was validated.
    assert "in checkpoints/step-12" in printed
    succeed(*workspace.pretrain(out, *options, "--resume-from", 8))
    assert [record["step"] for record in records(out) if "val_loss" in record] == measured


def test_tensorboard_has_every_number_of_the_metrics(workspace, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = ["--val-data-path", workspace.folder / "pretrain.jsonl", "--eval-samples", 2]
    succeed(*workspace.pretrain(tmp_path / "out", *options))
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    expected = set()
    for record in records(tmp_path / "out"):
        for name, value in record.items():
            expected |= {f"{name}/{part}" for part in value} if isinstance(value, dict) else {name}
    assert set(events.Tags()["scalars"]) == expected - {"step"}
    assert [event.step for event in events.Scalars("val_loss")] == [0, 4, 8, 12]
