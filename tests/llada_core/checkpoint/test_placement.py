import pytest
import torch

from llada_core.checkpoint.placement import Placement
from llada_core.errors import InvalidParameterError


@pytest.mark.parametrize(
    ("device", "dtype", "quantization", "field"),
    [
        ("tpu", "auto", "none", "device"),
        ("nonsense", "auto", "none", "device"),
        ("cpu", "fp16", "none", "dtype"),
        ("cpu", "auto", "int4", "quantization"),
    ],
)
def test_an_unknown_name_is_refused_by_field(device, dtype, quantization, field):
    with pytest.raises(InvalidParameterError, match=f"{field} is") as caught:
        Placement.of(device, dtype, quantization)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("dtype", "quantization", "expected"),
    [
        ("auto", "none", torch.float32),
        ("auto", "int8", torch.bfloat16),
        ("bfloat16", "none", torch.bfloat16),
        ("float32", "int8", torch.float32),
    ],
)
def test_the_dtype_on_a_cpu_does_not_depend_on_the_checkpoint(dtype, quantization, expected, tiny_network):
    assert Placement.of("cpu", dtype, quantization).dtype_for(tiny_network.config) == expected


def test_an_accelerator_computes_in_the_checkpoints_own_dtype(tiny_network):
    placement = Placement(torch.device("cuda"), None)
    assert placement.dtype_for(tiny_network.config) == tiny_network.config.dtype
