from tests.training.conftest import succeed


def test_sharding_on_one_process_is_said_to_do_nothing(workspace, tmp_path):
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--max-steps", 1, "--strategy", "fsdp"))
    assert "warning: --strategy fsdp shards over processes" in printed


def test_resume_without_a_checkpoint_starts_at_step_0_and_says_so(workspace, tmp_path):
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--max-steps", 1, "--resume"))
    assert "no checkpoint yet: from step 0" in printed
