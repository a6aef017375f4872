from tests.training.conftest import records, succeed


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
