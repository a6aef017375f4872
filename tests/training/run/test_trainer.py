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
