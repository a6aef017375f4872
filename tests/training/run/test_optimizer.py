from itertools import pairwise

from training.options.fields import PretrainOptions
from training.run.optimizer import learning_rate_at


def options(**values):
    return PretrainOptions(
        model_name_or_path="x", train_data_path=["x"], output_dir="x", learning_rate=1.0, max_steps=100, **values
    )


def test_wsd_warms_up_stays_and_decays_linearly_to_a_tenth():
    rates = [learning_rate_at(step, options(warmup_steps=10), max_steps=100) for step in range(100)]
    assert rates[:10] == [(step + 1) / 10 for step in range(10)]
    assert set(rates[10:90]) == {1.0}
    assert abs(rates[94] - 0.55) < 1e-9
    assert abs(rates[99] - 0.1) < 1e-9


def test_without_a_decay_the_learning_rate_stays():
    rates = [learning_rate_at(step, options(warmup_steps=0, decay_fraction=0), max_steps=100) for step in range(100)]
    assert set(rates) == {1.0}


def test_cosine_warms_up_and_falls_to_the_given_share():
    chosen = options(warmup_steps=10, lr_schedule="cosine", min_lr_ratio=0.2)
    rates = [learning_rate_at(step, chosen, max_steps=100) for step in range(100)]
    assert rates[9] == 1.0
    assert all(second < first for first, second in pairwise(rates[9:]))
    assert abs(rates[54] - 0.6) < 1e-9
    assert abs(rates[99] - 0.2) < 1e-9
