"""The packed CPU model against the network whose weights it holds."""

import os
import subprocess
import sys
from textwrap import dedent

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llada_core import InvalidParameterError, load_model
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.names import tensor_name
from llada_core.model.backends import cpu as cpu_module
from llada_core.model.backends.cpu import CPUMaskPredictor
from llada_core.model.kv_cache import KVCache
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens, Rows
from llada_core.text.special_tokens import SpecialTokens
from tests.conftest import GOLDEN, GOLDEN_CASES

LOGITS = load_file(GOLDEN / "logits.safetensors")

pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture
def inference():
    with torch.inference_mode():
        yield


def predictor_of(network, *, dtype=torch.float32, quantization="none"):
    return CPUMaskPredictor(
        network.config,
        SpecialTokens(0, 1, 2),
        lambda role, depth: network.state_dict()[tensor_name(role, depth)],
        dtype=dtype,
        quantization=quantization,
    )


def pack(*lengths, **options):
    generator = torch.Generator().manual_seed(0)
    tokens_T = torch.cat([torch.randint(0, 300, (length,), generator=generator) for length in lengths])
    return PackedTokens(tokens_T, lengths, **options)


@pytest.mark.parametrize("case", GOLDEN_CASES["logits"], ids=lambda case: case["id"])
def test_logits_equal_the_published_model(golden_models, case):
    model = golden_models[case["model"]]
    ids_BL = torch.tensor(case["input_ids"])
    mask_BL = torch.tensor(case["attention_mask"] or np.ones(ids_BL.shape)).bool()
    packed = PackedTokens(ids_BL[mask_BL], tuple(mask_BL.sum(dim=1).tolist()))
    logits_TV = model.head(model.hidden_states(packed))
    torch.testing.assert_close(logits_TV, LOGITS[case["tensor"]][mask_BL], atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
def test_rows_of_the_last_layer_equal_those_of_the_whole(golden_models, golden_networks, model_name):
    packed = pack(7, 12, 12, 1)
    rows = Rows.of(packed, [np.array([0, 6]), np.array([], dtype=int), np.arange(12), np.array([0])])
    for model in (golden_models[model_name], golden_networks[model_name]):
        whole = model.hidden_states(packed)[rows.index_R]
        torch.testing.assert_close(model.hidden_states(packed, rows), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", [np.arange(6, 14), np.array([0, 3, 4, 11, 19])], ids=["range", "set"])
@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
def test_a_window_over_a_fresh_cache_equals_the_whole(golden_models, golden_networks, model_name, window):
    for model in (golden_models[model_name], golden_networks[model_name]):
        cache = KVCache(model.shape, 20, dtype=torch.float32, device=torch.device("cpu"))
        packed = pack(20, 5)
        whole = model.hidden_states(PackedTokens(packed.tokens_T, (20, 5), None, (cache, None)))
        tokens_T = torch.cat((packed.tokens_T[window], packed.tokens_T[20:]))
        windows, caches = (window, np.arange(5)), (cache, None)
        again = model.hidden_states(PackedTokens(tokens_T, (len(window), 5), windows, caches))
        torch.testing.assert_close(again, torch.cat((whole[window], whole[20:])), atol=1e-5, rtol=0)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_few_rows_at_a_time_have_the_same_result(tiny_network, monkeypatch, quantization):
    packed = pack(30, 30, 9)
    rows = Rows.of(packed, [np.arange(20), np.arange(3), np.arange(9)])
    expected = predictor_of(tiny_network, quantization=quantization).hidden_states(packed, rows)
    monkeypatch.setattr(cpu_module, "_MOST_ROWS", 8)
    model = predictor_of(tiny_network, quantization=quantization)
    torch.testing.assert_close(model.hidden_states(packed, rows), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("network_fixture", ["mha", "gqa"])
@pytest.mark.parametrize(
    ("dtype", "quantization"), [(torch.float32, "none"), (torch.bfloat16, "none"), (torch.bfloat16, "int8")]
)
def test_weights_loaded_piece_by_piece_are_those_loaded_whole(
    golden_networks, monkeypatch, network_fixture, dtype, quantization
):
    network, packed = golden_networks[f"tiny-{network_fixture}"], pack(20, 3)
    monkeypatch.setattr(cpu_module, "_LOADED_ROWS", 1 << 20)
    whole = predictor_of(network, dtype=dtype, quantization=quantization)
    for rows in (1, 7, 24):
        monkeypatch.setattr(cpu_module, "_LOADED_ROWS", rows)
        pieces = predictor_of(network, dtype=dtype, quantization=quantization)
        found, expected = (model.head(model.hidden_states(packed)) for model in (pieces, whole))
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_loading_leaves_the_checkpoint_as_it_is(tiny_network):
    before = {name: weight.clone() for name, weight in tiny_network.state_dict().items()}
    predictor_of(tiny_network, quantization="int8")
    for name, weight in tiny_network.state_dict().items():
        torch.testing.assert_close(weight, before[name], atol=0, rtol=0)


def test_int8_weights_have_the_scale_of_their_largest_value():
    torch.manual_seed(0)
    weight = torch.randn(5, 64)
    linear = cpu_module.Int8Linear(5, [weight[:3].clone(), weight[3:].clone()])
    largest = weight.abs().amax(dim=1)
    torch.testing.assert_close(linear._scale_N * linear._levels * 127, largest)
    # Every weight is within half a quantisation level.
    found = linear(torch.eye(64)).T
    assert ((found - weight).abs() <= largest.unsqueeze(1) / 127 * 0.51).all()


def test_temporaries_of_the_linear_maps_stay_below_what_malloc_keeps():
    for widest in (8, 1400, 4096, 8 * 2048, 2 * 12288, 1 << 20):
        rows = cpu_module._most_rows(widest)
        assert rows % 8 == 0
        assert rows == 8 or rows * widest * 4 < 32 << 20


def test_every_token_has_a_place_at_each_of_its_experts_in_whole_groups_of_rows():
    torch.manual_seed(0)
    experts_TN = torch.stack([torch.randperm(7)[:3] for _ in range(45)])
    rows_P, places_TN, sizes = cpu_module._sorted_by_expert(experts_TN, 9)
    assert all(size % 8 == 0 for size in sizes) and sizes[7:] == [0, 0]
    assert len(rows_P) == sum(sizes) and len(places_TN.unique()) == places_TN.numel()
    assert torch.equal(rows_P[places_TN], torch.arange(45).unsqueeze(1).expand(45, 3))
    expert_P = torch.arange(9).repeat_interleave(torch.tensor(sizes))
    assert torch.equal(expert_P[places_TN], experts_TN)


@pytest.mark.parametrize(
    ("dtype", "quantization", "tolerance"),
    [(torch.bfloat16, "none", 0.04), (torch.float16, "none", 0.01), (torch.bfloat16, "int8", 0.1)],
    ids=["bfloat16", "float16", "int8"],
)
def test_lower_precision_stays_near(dtype, quantization, tolerance):
    torch.manual_seed(0)
    network = Network(LLaDAConfig(d_model=128, n_heads=4, n_layers=3, mlp_hidden_size=256, vocab_size=300)).eval()
    packed = pack(40, 3)
    exact = network.head(network.hidden_states(packed))
    model = predictor_of(network, dtype=dtype, quantization=quantization)
    found = model.head(model.hidden_states(packed)).float()
    # The root mean square of the error, in standard deviations of the logits.
    assert float((found - exact).square().mean().sqrt() / exact.std()) < tolerance


def test_rows_in_int8_do_not_depend_on_their_neighbours(tiny_network):
    model = predictor_of(tiny_network, dtype=torch.bfloat16, quantization="int8")
    packed = pack(9, 14)
    alone = model.hidden_states(PackedTokens(packed.tokens_T[:9], (9,)))
    torch.testing.assert_close(model.hidden_states(packed)[:9], alone, atol=0, rtol=0)


@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_int8_is_right_on_processors_whose_products_saturate(instructions):
    # All products are positive, so without VNNI their 16-bit sums would overflow.
    code = """
        import torch
        from llada_core.model.backends.cpu import Int8Linear
        weight, x = torch.rand(32, 256) + 0.5, torch.rand(8, 256) + 0.5
        print(float((Int8Linear(32, [weight.clone()])(x) / (x @ weight.T) - 1).abs().max()))
    """
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", dedent(code)]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert float(ran.stdout) < 0.01


def test_few_numbers_of_rows_meet_a_matrix_product(tiny_network, monkeypatch):
    seen = set()

    def watched(num_features, pieces, dtype):
        weight_NE = torch.cat(list(pieces))

        def linear(x_TE):
            seen.add(len(x_TE))
            return x_TE @ weight_NE.T

        return linear

    monkeypatch.setattr(cpu_module, "packed_linear", watched)
    model = predictor_of(tiny_network)
    for lengths in ((5,), (9, 14), (30, 1)):
        packed = pack(*lengths)
        rows = Rows.of(packed, [np.arange(0, length, 2) for length in lengths])
        assert len(model.head(model.hidden_states(packed, rows))) == len(rows.index_R)
    assert all(number % 8 == 0 for number in seen)


def test_a_row_of_zeros_and_a_feature_of_zeros_stay_zero_in_int8():
    weight = torch.zeros(3, 8)
    weight[0] = 1.0
    linear = cpu_module.Int8Linear(3, [weight])
    found = linear(torch.cat((torch.zeros(1, 8), torch.ones(1, 8))))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0, 0], [8, 0, 0]]), atol=1e-4, rtol=0)


def test_a_tied_head_is_the_embedding():
    network = Network(
        LLaDAConfig(d_model=32, n_heads=4, n_layers=2, mlp_hidden_size=48, vocab_size=300, weight_tying=True)
    ).eval()
    packed = pack(6)
    model = predictor_of(network)
    expected = network.head(network.hidden_states(packed))
    torch.testing.assert_close(model.head(model.hidden_states(packed)), expected, atol=1e-5, rtol=0)


def test_quantization_is_refused_where_it_does_not_exist():
    folder = GOLDEN / "models" / "tiny-mha"
    with pytest.raises(InvalidParameterError, match="quantization is 'int4'; it must be one of none, int8"):
        load_model(folder, quantization="int4")
    assert load_model(folder, quantization="int8").dtype == torch.bfloat16
