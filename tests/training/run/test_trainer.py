from itertools import pairwise

import pytest
from safetensors.torch import load_file

from tests.training.conftest import losses, records, succeed
from training.options.fields import PretrainOptions
from training.run.optimizer import learning_rate_at


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
    found = losses(tmp_path / "out")
    first, last = ([found[step] for step in steps] for steps in (range(1, 11), range(71, 81)))
    assert sum(last) < 0.8 * sum(first)


def test_the_mean_loss_of_a_noise_level_is_reported_for_every_level_that_occurred(workspace, tmp_path):
    succeed(*workspace.pretrain(tmp_path / "out", "--batch-size", 16, "--max-steps", 4))
    levels = [record["loss_by_noise_level"] for record in records(tmp_path / "out")]
    assert all(0 < float(level) <= 1 for found in levels for level in found)
    assert len({level for found in levels for level in found}) == 10


def test_adapters_leave_the_base_alone_and_the_output_folder_has_them_merged(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2))
    base, merged = (load_file(folder / "model.safetensors") for folder in (workspace.folder / "base", out))
    changed = {name for name in base if not base[name].equal(merged[name])}
    assert changed == {name for name in base if "blocks" in name and "norm" not in name}
    adapters = load_file(out / "adapter" / "adapter_model.safetensors")
    assert len(adapters) == 2 * len(changed)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks
def test_adapters_load_with_peft_itself_and_say_the_same(workspace, tmp_path):
    import torch
    from peft import PeftModel

    from llada_core import load_checkpoint

    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2))
    merged = load_checkpoint(out)
    wrapped = PeftModel.from_pretrained(load_checkpoint(workspace.folder / "base"), str(out / "adapter"))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        # The merged weights are stored in bfloat16.
        torch.testing.assert_close(wrapped.get_base_model()(ids).logits, merged(ids).logits, atol=0.05, rtol=0.05)


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


def test_without_a_decay_the_last_steps_are_as_long_as_the_others():
    rates = [learning_rate_at(step, options(warmup_steps=0, decay_fraction=0), max_steps=100) for step in range(100)]
    assert set(rates) == {1.0}


def test_cosine_warms_up_and_falls_to_the_given_share():
    chosen = options(warmup_steps=10, lr_schedule="cosine", min_lr_ratio=0.2)
    rates = [learning_rate_at(step, chosen, max_steps=100) for step in range(100)]
    assert rates[9] == 1.0
    assert all(second < first for first, second in pairwise(rates[9:]))
    assert abs(rates[54] - 0.6) < 1e-9
    assert abs(rates[99] - 0.2) < 1e-9
