import pytest
import torch
from safetensors.torch import load_file

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens
from tests.conftest import GOLDEN, GOLDEN_CASES


def pack(sequences):
    return PackedTokens(torch.cat(sequences), tuple(len(sequence) for sequence in sequences))


LOGITS = load_file(GOLDEN / "logits.safetensors")


@pytest.mark.parametrize("case", GOLDEN_CASES["logits"], ids=lambda case: case["id"])
def test_logits_equal_the_published_model(golden_networks, case):
    model = golden_networks[case["model"]]
    attention_mask = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    with torch.inference_mode():
        logits_BLV = model(torch.tensor(case["input_ids"]), attention_mask).logits
    is_token_BL = torch.ones(logits_BLV.shape[:2]).bool() if attention_mask is None else attention_mask.bool()
    assert list(logits_BLV.shape) == case["shape"]
    torch.testing.assert_close(logits_BLV[is_token_BL], LOGITS[case["tensor"]][is_token_BL], atol=1e-3, rtol=0)


@torch.inference_mode()
def test_a_ragged_batch_equals_its_sequences_one_by_one(tiny_network):
    sequences = [torch.randint(0, 300, (length,)) for length in (5, 1, 17, 17, 3)]
    packed = pack(sequences)
    together_TV = tiny_network.head(tiny_network.hidden_states(packed))
    alone_TV = torch.cat([tiny_network(sequence[None]).logits[0] for sequence in sequences])
    torch.testing.assert_close(together_TV, alone_TV, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_logits_are_computed_only_at_the_rows_asked_for(tiny_network):
    packed = pack([torch.arange(9), torch.arange(4)])
    rows_R = torch.tensor([12, 3])
    all_TV = tiny_network.head(tiny_network.hidden_states(packed))
    torch.testing.assert_close(
        tiny_network.head(tiny_network.hidden_states(packed)[rows_R]), all_TV[rows_R], atol=1e-5, rtol=0
    )


def small_config(**changes: object) -> LLaDAConfig:
    fields = {"d_model": 32, "n_heads": 4, "n_layers": 2, "mlp_hidden_size": 48, "vocab_size": 60}
    return LLaDAConfig(**{**fields, **changes})


def test_a_tied_head_is_the_embedding():
    model = Network(small_config(weight_tying=True))
    assert "model.transformer.ff_out.weight" not in model.state_dict()
    assert model.get_output_embeddings() is model.get_input_embeddings()
    assert model(torch.arange(4)[None]).logits.shape == (1, 4, 60)


@pytest.mark.parametrize("changes", [{}, {"weight_tying": True}, {"n_kv_heads": 2, "embedding_size": 64}], ids=str)
def test_the_config_knows_every_tensor_of_the_network(changes):
    config = small_config(**changes)
    tensors = {name: tuple(tensor.shape) for name, tensor in Network(config).state_dict().items()}
    assert config.tensor_shapes() == tensors


def test_padding_columns_of_the_head_are_part_of_the_logits():
    model = Network(small_config(embedding_size=64))
    assert model(torch.arange(4)[None]).logits.shape == (1, 4, 64)


def test_initial_weights_follow_the_published_deviations():
    torch.manual_seed(0)
    model = Network(small_config(d_model=256, n_layers=3, mlp_hidden_size=512))
    block = model.model.transformer["blocks"][2]
    # A normal cut at three deviations keeps 98.7 % of the deviation.
    assert block.q_proj.weight.std().item() == pytest.approx(0.987 / 16, rel=0.02)
    assert block.attn_out.weight.std().item() == pytest.approx(0.987 / 16 / 6**0.5, rel=0.02)
    assert block.ff_out.weight.std().item() == pytest.approx(0.987 / 512**0.5 / 6**0.5, rel=0.02)


def test_every_tensor_stays_on_the_device_of_the_model():
    with torch.device("meta"):
        model = Network(small_config())
    packed = pack([torch.arange(5, device="meta"), torch.arange(3, device="meta")])
    assert model.head(model.hidden_states(packed)[torch.tensor([1, 6], device="meta")]).device.type == "meta"
