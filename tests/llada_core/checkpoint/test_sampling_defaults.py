"""The defaults of sampling that a checkpoint's generation_config.json states."""

import json
import shutil

import pytest

from llada_core import generate, load_checkpoint, load_model
from llada_core.checkpoint.load import Checkpoint
from llada_core.errors import UnsupportedCheckpointError
from tests.conftest import GOLDEN


@pytest.fixture
def dream(tmp_path):
    def write(**generation_config):
        folder = tmp_path / "dream"
        shutil.copytree(GOLDEN / "family" / "dream" / "models" / "tiny-mha", folder)
        (folder / "generation_config.json").write_text(json.dumps(generation_config))
        return folder

    return write


PUBLISHED = {"alg": "topk_margin", "alg_temp": None, "eps": 0.01, "temperature": 0.2, "top_p": 0.95, "top_k": 40}


@pytest.mark.parametrize("load", [load_model, load_checkpoint])
def test_they_are_the_models_on_both_interpreters(dream, load):
    folder = dream(**PUBLISHED, steps=512, num_return_sequences=1)
    model = load(folder)
    defaults = {"remasking": "margin", "eps": 0.01, "temperature": 0.2, "top_p": 0.95, "top_k": 40}
    assert model.shape.sampler.defaults == defaults
    (by_default,) = generate(model, [5, 6], max_tokens=8)
    assert by_default == generate(model, [5, 6], gen_length=8, schedule="timestep", **defaults)[0]
    assert by_default != generate(model, [5, 6], max_tokens=8, temperature=5.0)[0]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("alg", "p2", "one of origin, maskgit_plus, topk_margin, entropy"),
        ("alg", 1, "one of origin"),
        ("temperature", "hot", "a number from 0 to 1e\\+06"),
        ("top_p", 1.5, "a number from 0 to 1"),
        ("top_k", 0.5, "a whole number"),
        ("top_k", True, "a whole number"),
        ("eps", 0, "a number from 1e-09 to 0.999"),
    ],
)
def test_a_value_that_the_published_sampler_does_not_take_is_refused_by_name(dream, field, value, rule):
    with pytest.raises(UnsupportedCheckpointError, match=rf"generation_config.json: {field} is .*; it must be {rule}"):
        Checkpoint.open(dream(**{field: value}))


def test_a_sampler_that_reads_none_has_none(tmp_path):
    folder = tmp_path / "illada"
    shutil.copytree(GOLDEN / "family" / "illada" / "models" / "tiny-variant", folder)
    (folder / "generation_config.json").write_text(
        json.dumps({"temperature": 0.6, "eos_token_id": 3, "mask_token_id": 5})
    )
    assert Checkpoint.open(folder).sampler.defaults == {}
