import pytest
import torch

from tests.training.conftest import llada_train


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_the_options_that_need_less(workspace, tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("training.stages.objective.Objective.forward", fail)
    result = llada_train(*workspace.pretrain(tmp_path / "out"))
    assert result.returncode == 1
    assert "out of memory: lower --micro-batch-size" in result.stderr
    assert "--activation-checkpointing" in result.stderr and "Traceback" not in result.stderr
