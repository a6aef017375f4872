from dataclasses import asdict
from itertools import pairwise

import pytest

from training.options.fields import PretrainOptions, SFTOptions
from training.run.schedule import Schedule


def schedule(kind=PretrainOptions, max_steps=100, **values):
    options = kind(
        model_name_or_path="x", train_data_path=["x"], output_dir="x", learning_rate=1.0, max_steps=max_steps, **values
    )
    return Schedule.of(options, max_steps=max_steps)


def test_wsd_warms_up_stays_and_decays_linearly_to_a_tenth():
    rates = [schedule(warmup_steps=10).rate_at(step) for step in range(100)]
    assert rates[:10] == [(step + 1) / 10 for step in range(10)]
    assert set(rates[10:90]) == {1.0}
    assert abs(rates[94] - 0.55) < 1e-9
    assert abs(rates[99] - 0.1) < 1e-9


def test_without_a_decay_the_learning_rate_stays():
    rates = [schedule(warmup_steps=0, decay_fraction=0).rate_at(step) for step in range(100)]
    assert set(rates) == {1.0}


def test_cosine_warms_up_and_falls_to_the_given_share():
    chosen = schedule(warmup_steps=10, lr_schedule="cosine", min_lr_ratio=0.2)
    rates = [chosen.rate_at(step) for step in range(100)]
    assert rates[9] == 1.0
    assert all(second < first for first, second in pairwise(rates[9:]))
    assert abs(rates[54] - 0.6) < 1e-9
    assert abs(rates[99] - 0.2) < 1e-9


@pytest.mark.parametrize(
    ("kind", "max_steps", "warmup_steps"),
    [(PretrainOptions, 10**6, 2000), (PretrainOptions, 300, 30), (SFTOptions, 10**4, 50), (SFTOptions, 7, 0)],
)
def test_a_warm_up_that_is_not_given_takes_at_most_a_tenth(kind, max_steps, warmup_steps):
    assert schedule(kind, max_steps).warmup_steps == warmup_steps


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"max_steps": 200}, 90),
        ({"max_steps": 50, "decay_fraction": 0.2}, 40),
        ({"min_lr_ratio": 0.5}, 90),
        ({"warmup_steps": 11}, 0),
        ({"learning_rate": 2.0}, 0),
        ({"lr_schedule": "cosine"}, 10),
        ({}, None),
    ],
)
def test_two_schedules_differ_from_the_first_step_with_another_rate_on(changed, first):
    planned = asdict(schedule(warmup_steps=10))
    now = Schedule(**{**planned, **changed})
    assert now.first_difference(planned, before=100) == first
    assert first is None or now.first_difference(planned, before=first) is None
