import pytest

from training.run.state import (
    RunIdentity,
    State,
    all_checkpoints,
    best_checkpoint,
    newest_checkpoint,
    read_state,
    write_state,
)

RUN = RunIdentity({"seed": 0}, {"mask_id": 2, "eos_id": 1, "eot_id": None}, None, None)


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints of three steps, of which the last was not validated, beside an incomplete one."""
    for step, val_loss in ((8, 2.0), (12, 1.0), (100, None)):
        (tmp_path / f"step-{step}").mkdir()
        write_state(tmp_path / f"step-{step}", State(step, val_loss, (), RUN))
    (tmp_path / "incomplete-104").mkdir()
    (tmp_path / "incomplete-step-4").mkdir()
    return tmp_path


def test_a_state_is_read_as_it_was_written(checkpoints):
    assert read_state(checkpoints / "step-8") == State(8, 2.0, (), RUN)


def test_complete_checkpoints_are_in_the_order_of_their_steps(checkpoints):
    assert [checkpoint.name for checkpoint in all_checkpoints(checkpoints)] == ["step-8", "step-12", "step-100"]
    assert newest_checkpoint(checkpoints) == checkpoints / "step-100"


def test_the_best_checkpoint_has_the_lowest_validation_loss(checkpoints):
    assert best_checkpoint(checkpoints) == (checkpoints / "step-12", 1.0)


def test_a_run_without_checkpoints_has_neither_a_newest_nor_a_best_one(tmp_path):
    assert newest_checkpoint(tmp_path / "missing") is None
    assert best_checkpoint(tmp_path / "missing") is None
