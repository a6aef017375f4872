"""How many threads a computation uses, and how idle ones wait."""

import os
import subprocess
import sys

import pytest
import torch

from llada_core.threads import fastest_num_threads, num_cores, spin_briefly, wait_passively


class TimedModel:
    """A model whose passes take as long as told: seconds by number of threads."""

    device = torch.device("cpu")

    def __init__(self, shape, seconds, first=0.0):
        self.shape = shape
        self.now = 0.0
        self.used = []
        self._seconds = seconds
        self._first = first

    def hidden_states(self, packed):
        self.used.append((torch.get_num_threads(), packed.longest))
        self.now += self._first if packed.longest == 1 else self._seconds[torch.get_num_threads()]
        return packed.tokens_T

    def head(self, hidden):
        return hidden


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("seconds", "fastest"), [({1: 0.01, 2: 0.02}, 1), ({1: 0.02, 2: 0.01}, 2), ({1: 1, 2: 1}, 1)])
def test_the_faster_number_of_threads_is_chosen(tiny, two_threads, seconds, fastest):
    model = TimedModel(tiny.shape, seconds)
    assert fastest_num_threads(model, clock=lambda: model.now) == fastest
    assert torch.get_num_threads() == 2
    assert {number for number, _ in model.used} == {1, 2}


def test_the_trial_is_short(tiny, two_threads):
    model = TimedModel(tiny.shape, {1: 0.4, 2: 0.3})
    fastest_num_threads(model, clock=lambda: model.now)
    assert model.now < 2.5


def test_a_large_model_takes_all_threads_after_one_token(tiny, two_threads):
    model = TimedModel(tiny.shape, {}, first=30.0)
    assert fastest_num_threads(model, clock=lambda: model.now) == 2
    assert [length for _, length in model.used] == [1]


def test_with_one_thread_nothing_is_tried(tiny):
    assert torch.get_num_threads() == 1
    assert fastest_num_threads(TimedModel(tiny.shape, {})) == 1


def test_a_real_model_can_be_tried(tiny, two_threads):
    assert fastest_num_threads(tiny) in (1, 2)


def test_the_cores_are_those_that_the_process_may_use():
    code = "from llada_core.threads import num_cores; print(num_cores())"
    command = ["taskset", "-c", "0", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"
    assert num_cores() == len(os.sched_getaffinity(0))


def test_idle_threads_sleep_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_idle_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch):
    for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(variable, raising=False)
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "300"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    spin_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_trainer_sets_the_policy_before_torch_is_imported():
    code = (
        "import os, sys; from unittest.mock import patch; import training.cli as cli\n"
        "assert 'torch' not in sys.modules\n"
        "show = lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)\n"
        "with patch.object(cli, 'app', show): cli.main()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert shown.stdout == "PASSIVE False\n"
