"""Kills at random moments, and every kind of damage in every file of a run: it ends bit for bit as if nothing had been.

`make chaos` runs these. The seed of the moments is in a failure's message.
"""

import random
import shutil
import time
from contextlib import suppress

import psutil
import pytest

from tests.training.conftest import llada_train, losses, start, succeed, until_exists
from tests.training.damage import DAMAGES
from training.run.lock import LOCK_FILE

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

NUM_KILLS = 20
LONG = ["--max-steps", 1500, "--save-steps", 10, "--val-size", 20, "--eval-samples", 2, "--eval-steps", 50]
AVERAGED = ["--ema-decay", 0.99]


def kill_all(process):
    """SIGKILL for the process and, under torchrun, for its workers."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.kill()
    process.communicate()


def weights(out):
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("processes", [None, 2])
def test_a_run_that_is_killed_twenty_times_ends_like_one_that_was_not(workspace, tmp_path, processes):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    if processes is None:
        succeed(*workspace.pretrain(whole, *LONG, *AVERAGED))
    else:
        _, errors = start(*workspace.pretrain(whole, *LONG, *AVERAGED), processes=processes).communicate()
        assert (whole / "model.safetensors").exists(), errors
    seed = time.time_ns()
    moments = random.Random(seed)
    for _ in range(NUM_KILLS):
        process = start(*workspace.pretrain(broken, *LONG, *AVERAGED, "--resume"), processes=processes)
        until_exists(broken / LOCK_FILE, process)
        time.sleep(moments.uniform(0, 0.6))
        kill_all(process)
    assert not (broken / "model.safetensors").exists(), "it was finished before the last kill"
    _, errors = start(*workspace.pretrain(broken, *LONG, *AVERAGED, "--resume"), processes=processes).communicate()
    assert (broken / "model.safetensors").exists(), errors
    assert weights(broken) == weights(whole), seed
    assert losses(broken) == losses(whole), seed
    assert losses(broken, "val_loss") == losses(whole, "val_loss"), seed


@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_of_any_file_changes_what_is_trained(workspace, tmp_path, damage):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    options = ["--val-size", 20, "--eval-samples", 2, "--keep-last", 3, *AVERAGED]
    succeed(*workspace.pretrain(whole, *options))
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step-12")
    (stopped / "model.safetensors").unlink()
    paths = [path for path in stopped.rglob("*") if path.is_file() and path.suffix != ".lock"]
    files = [path.relative_to(stopped) for path in paths if "tensorboard" not in path.parts]
    assert len(files) > 15
    for file in files:
        out = shutil.copytree(stopped, tmp_path / "out")
        (out / file).write_bytes(damage((out / file).read_bytes()))
        outcome = llada_train(*workspace.pretrain(out, *options, "--resume"))
        assert outcome.returncode == 0, (file, outcome.stderr)
        assert weights(out) == weights(whole), file
        # A damaged record of a step that is not run again is lost, and no other.
        kept, told = losses(whole), losses(out)
        assert {step: told[step] for step in told} == {step: kept[step] for step in told}, file
        assert len(kept) == len(told) or file.name == "metrics.jsonl", file
        shutil.rmtree(out)
