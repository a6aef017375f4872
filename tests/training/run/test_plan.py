from types import SimpleNamespace

import pytest
import torch

from tests.training.fake_samples import EOS, SHAPE, samples_of
from training.distributed import World
from training.options.fields import GRPOOptions, SFTOptions
from training.run.plan import plan_run
from training.stages.sft import SFT
from training.stages.table import stage_of


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "num_epochs", "steps"),
    [(63, 32, 3, 6), (64, 32, 3, 6), (65, 32, 3, 7), (10, 32, 3, 3), (100, 32, 0.5, 2), (100, 32, 0.01, 1)],
)
def test_an_epoch_is_a_pass_over_all_samples(num_samples, batch_size, num_epochs, steps):
    options = SFTOptions(
        model_name_or_path="x", train_data_path=["x"], output_dir="x", num_epochs=num_epochs, batch_size=batch_size
    )
    model = SimpleNamespace(special_tokens=SimpleNamespace(eos_id=EOS))
    start = SimpleNamespace(options=options, stage=SFT(50), model=model)
    plan = plan_run(start, samples_of(*[5] * num_samples), World(0, 1, torch.device("cpu")))
    assert plan.max_steps == steps


def test_an_epoch_has_every_update_on_the_answers_to_all_prompts():
    options = GRPOOptions(
        model_name_or_path="x", train_data_path=["x"], output_dir="x", num_epochs=2, batch_size=8, updates=3,
        max_length=64, gen_length=8, reward=["length"],
    )  # fmt: skip
    model = SimpleNamespace(special_tokens=SimpleNamespace(eos_id=EOS))
    start = SimpleNamespace(options=options, stage=stage_of(options, SHAPE), model=model)
    plan = plan_run(start, samples_of(*[5] * 20), World(0, 1, torch.device("cpu")))
    assert plan.max_steps == 5 * 3
    samples = [plan.planner.plan(step).samples_B.tolist() for step in range(6)]
    assert samples[0] == samples[1] == samples[2] != samples[3] and [plan.planner.plan(5).repeat, samples[5]] == [
        2,
        samples[3],
    ]
