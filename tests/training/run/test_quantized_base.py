"""A base in 8 or 4 bits equals one that holds the dequantized weights: values, gradients, runs."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.training.conftest import llada_train, losses, succeed
from training.options.fields import SFTOptions
from training.run.quantized_base import BYTES_PER_WEIGHT, QuantizedLinear, quantize_linears

HEAD = "model.transformer.ff_out.weight"
CPU = torch.device("cpu")
dtypes = pytest.mark.parametrize("base_dtype", ["int8", "nf4"])


@dtypes
@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_equals_one_with_the_dequantized_weight_forward_and_backward(base_dtype, autocast):
    torch.manual_seed(0)
    quantized = QuantizedLinear(torch.randn(48, 64), base_dtype)
    plain = nn.Linear(64, 48, bias=False)
    plain.weight.data = quantized.dequantized()
    x = torch.randn(5, 64)
    results = []
    for layer in (quantized, plain):
        inputs = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer(inputs)
        y.float().pow(2).sum().backward()
        results.append((y.detach(), inputs.grad))
    assert results[0][0].dtype == (torch.bfloat16 if autocast else torch.float32)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))
    assert quantized.weight.grad is None


@pytest.mark.parametrize(("base_dtype", "error"), [("int8", 0.02), ("nf4", 0.1)])
def test_a_weight_comes_back_to_within_the_formats_error_in_its_own_dtype_and_size(base_dtype, error):
    torch.manual_seed(0)
    weight = torch.randn(512, 256, dtype=torch.bfloat16) / 16
    quantized = QuantizedLinear(weight, base_dtype)
    back = quantized.dequantized()
    assert back.dtype == weight.dtype and back.shape == weight.shape
    assert (back.float() - weight.float()).norm() / weight.float().norm() < error
    assert quantized.weight.nbytes == weight.numel() * int(2 * BYTES_PER_WEIGHT[base_dtype]) // 2


@dtypes
def test_only_the_linear_maps_of_the_module_are_replaced(base_dtype, golden_networks):
    network = copy.deepcopy(golden_networks["tiny-mha"])
    quantize_linears(network.blocks, base_dtype, device=CPU)
    replaced = {name.split(".")[-1] for name, module in network.named_modules() if isinstance(module, QuantizedLinear)}
    assert replaced == {"q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out"}
    assert not isinstance(network.model.transformer["ff_out"], QuantizedLinear)


@dtypes
def test_a_run_equals_one_on_the_dequantized_base_and_resumes(workspace, tmp_path, base_dtype):
    lora = ["--lora-r", 2, "--learning-rate", 1e-2, "--dtype", "float32", "--activation-checkpointing"]
    base = workspace.folder / "base"
    dequantized = tmp_path / "dequantized"
    dequantized.mkdir()
    for file in base.iterdir():
        if file.is_file() and file.suffix == ".json":
            (dequantized / file.name).write_bytes(file.read_bytes())
    weights = {
        name: QuantizedLinear(weight.float(), base_dtype).dequantized()
        if ".blocks." in name and weight.dim() == 2
        else weight
        for name, weight in load_file(base / "model.safetensors").items()
    }
    save_file(weights, dequantized / "model.safetensors")
    quantized, plain = tmp_path / "quantized", tmp_path / "plain"
    succeed(*workspace.sft(quantized, *lora, "--base-dtype", base_dtype))
    options = workspace.sft(plain, *lora)
    options[options.index(base)] = dequantized
    succeed(*options)
    assert losses(quantized) == losses(plain)
    ours, theirs = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (quantized, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert json.loads((quantized / "checkpoints" / "step-12" / "state.json").read_text())["run"]["decisive"][
        "base_dtype"
    ]
    before = losses(quantized)
    assert "continuing from step 8" in succeed(
        *workspace.sft(quantized, *lora, "--base-dtype", base_dtype, "--resume-from", 8)
    )
    assert losses(quantized) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base-dtype", "nf4"], "base_dtype: without lora_r or adapter all weights are trained"),
        (
            ["--base-dtype", "nf4", "--lora-r", 2, "--strategy", "fsdp"],
            "not sharded; choose strategy ddp",
        ),
        (["--load-in-4bit", "true"], "here it is --base-dtype nf4"),
    ],
)
def test_a_quantized_base_that_cannot_be_is_refused(workspace, tmp_path, options, message):
    outcome = llada_train(*workspace.sft(tmp_path / "out", *options))
    assert outcome.returncode != 0
    assert message in outcome.stderr


def test_the_formats_are_those_of_the_options():
    assert SFTOptions.model_fields["base_dtype"].annotation.__args__[0].__args__ == tuple(BYTES_PER_WEIGHT)
