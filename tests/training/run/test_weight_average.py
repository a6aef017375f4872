"""`--ema-decay`: the average against its formula, in one process and through a run."""

import torch
from safetensors.torch import load_file

from tests.training.conftest import succeed
from tests.training.run.test_resume import assert_equal, contents
from training.run.state import newest_checkpoint
from training.run.weight_average import WeightAverage


def test_the_average_follows_its_formula_and_leaves_frozen_weights_out():
    model = torch.nn.Linear(3, 2).double()
    model.bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    expected = model.weight.detach().clone()
    assert set(average.tensors) == {"weight"}
    for step, decay in enumerate((2 / 11, 3 / 12, 4 / 13), start=1):
        with torch.no_grad():
            model.weight.normal_()
        average.update(step)
        expected = decay * expected + (1 - decay) * model.weight.detach()
        torch.testing.assert_close(average.tensors["weight"], expected)
    average.update(10_000)
    torch.testing.assert_close(average.tensors["weight"], 0.5 * expected + 0.5 * model.weight.detach())


def test_the_model_has_its_own_weights_again_bit_for_bit_even_after_an_error():
    model = torch.nn.Linear(3, 2)
    average = WeightAverage(model, 0.9)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1 / 3)
    own = model.weight.detach().clone()
    try:
        with average.in_use():
            assert torch.equal(model.weight, start)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(model.weight, own)
    assert torch.equal(average.tensors["weight"], start)


def test_the_average_changes_no_step_and_is_what_the_run_validates_and_writes(workspace, tmp_path):
    options = ["--dtype", "float32", "--learning-rate", 1e-2, "--val-data-path", workspace.folder / "pretrain.jsonl"]
    options += ["--eval-samples", 4, "--eval-steps", 4]
    folders = [tmp_path / name for name in ("plain", "averaged", "resumed")]
    succeed(*workspace.pretrain(folders[0], *options))
    for out in folders[1:]:
        succeed(*workspace.pretrain(out, *options, "--ema-decay", 0.9))
    plain, averaged, _ = (contents(newest_checkpoint(out / "checkpoints")) for out in folders)
    assert_equal(plain, {name: value for name, value in averaged.items() if not name.startswith(".average")})
    exported = load_file(folders[1] / "model.safetensors")
    for name, weight in exported.items():
        assert torch.equal(weight, averaged[f".average.{name}"].bfloat16())
    assert not torch.equal(exported["model.transformer.wte.weight"], plain[".model.model.transformer.wte.weight"])
    # From a checkpoint in the middle, the average goes on as if the run had never stopped.
    succeed(*workspace.pretrain(folders[2], *options, "--ema-decay", 0.9, "--resume-from", 8))
    assert_equal(averaged, contents(newest_checkpoint(folders[2] / "checkpoints")))


def test_adapters_are_averaged_too(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2, "--ema-decay", 0.9))
    averages = {
        name: value
        for name, value in contents(newest_checkpoint(out / "checkpoints")).items()
        if name.startswith(".average")
    }
    written = load_file(out / "adapter" / "adapter_model.safetensors")
    assert sorted(weight.sum().item() for weight in written.values()) == sorted(
        weight.sum().item() for weight in averages.values()
    )
