"""The yardstick itself against the vectors recorded from the authors' code."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llada_core.files import read_json
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada_moe import LLaDAMoEConfig
from tests.conftest import GOLDEN, GOLDEN_CASES
from tests.reference.llada import ReferenceModel, generate
from tests.reference.llada_moe import ReferenceMoE

LOGITS = load_file(GOLDEN / "logits.safetensors")
PLAIN = {"temperature", "remasking", "logits_eos_inf", "confidence_eos_eot_inf"}


@pytest.fixture(scope="module")
def references():
    folders = {folder.name: folder for folder in (GOLDEN / "models").iterdir()}
    return {
        name: ReferenceModel(
            LLaDAConfig.from_dict(read_json(folder / "config.json")),
            load_file(folder / "model.safetensors"),
        )
        for name, folder in folders.items()
    }


@pytest.mark.parametrize("case", GOLDEN_CASES["logits"], ids=lambda case: case["id"])
def test_logits_are_the_published_ones(references, case):
    mask_BL = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    logits_BLV = references[case["model"]](torch.tensor(case["input_ids"]), mask_BL)
    is_token_BL = torch.ones(logits_BLV.shape[:2]).bool() if mask_BL is None else mask_BL.bool()
    torch.testing.assert_close(logits_BLV[is_token_BL], LOGITS[case["tensor"]][is_token_BL], atol=1e-4, rtol=0)


def is_plain(case):
    params = case["params"]
    return params.get("remasking", "low_confidence") == "low_confidence" and not (
        params.get("logits_eos_inf") or params.get("confidence_eos_eot_inf")
    )


@pytest.mark.parametrize("case", [c for c in GOLDEN_CASES["generate"] if is_plain(c)], ids=lambda case: case["id"])
def test_generations_are_the_published_ones(references, case):
    params = {name: value for name, value in case["params"].items() if name not in PLAIN}
    mask = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    found = generate(
        references[case["model"]],
        torch.tensor(case["prompt_ids"]),
        mask,
        mask_id=GOLDEN_CASES["special_ids"][case["model"]]["mask_id"],
        **params,
    )
    assert found[:, -params["gen_length"] :].tolist() == case["output_ids"]


MIXTURES = GOLDEN / "family" / "llada_moe"


@pytest.mark.parametrize(
    "case", json.loads((MIXTURES / "cases.json").read_text())["logits"], ids=lambda case: case["id"]
)
def test_logits_of_the_mixture_are_the_published_ones(case):
    folder = MIXTURES / "models" / case["model"]
    model = ReferenceMoE(
        LLaDAMoEConfig.from_dict(read_json(folder / "config.json")),
        load_file(folder / "model.safetensors"),
    )
    mask_BL = None if case["attention_mask"] is None else torch.tensor(case["attention_mask"])
    logits_BLV = model(torch.tensor(case["input_ids"]), mask_BL)
    expected_BLV = load_file(MIXTURES / "logits.safetensors")[case["tensor"]]
    is_token_BL = torch.ones(logits_BLV.shape[:2]).bool() if mask_BL is None else mask_BL.bool()
    torch.testing.assert_close(logits_BLV[is_token_BL], expected_BLV[is_token_BL], atol=1e-4, rtol=0)
