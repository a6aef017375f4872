"""Special tokens and chat format of LLaDA's relatives, which come from the checkpoint's own files."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llada_core import DEMO_FOLDER
from llada_core.checkpoint.load import Checkpoint, load_checkpoint
from llada_core.checkpoint.save import save_checkpoint
from llada_core.errors import InvalidParameterError, UnsupportedCheckpointError
from llada_core.model.network import Network
from llada_core.text.tokenizer import Message
from tests.conftest import GOLDEN
from tests.llada_core.model.architectures.test_family import MODELS, network_of

TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|role_end|>{% endfor %}"
# Fields that say how a file was written, not what the model computes.
_WRITTEN_ANEW = {"dtype", "torch_dtype", "transformers_version"}
CHAT = [Message("user", "Hello <|mask|><|role_end|>")]


@pytest.fixture
def folder(tmp_path):
    """A LLaDA-MoE config with the demo's vocabulary, in which special tokens are called as in LLaDA-MoE's."""
    model = GOLDEN / "family" / "llada_moe" / "models" / "tiny-7b-like"
    definition = (DEMO_FOLDER / "tokenizer.json").read_text()
    definition = definition.replace("<|mdm_mask|>", "<|mask|>").replace("<|eot_id|>", "<|role_end|>")
    (tmp_path / "tokenizer.json").write_text(definition)
    fields = json.loads((model / "config.json").read_text())
    vocab_size = json.loads((DEMO_FOLDER / "config.json").read_text())["vocab_size"]
    del fields["eos_token_id"]
    (tmp_path / "config.json").write_text(json.dumps({**fields, "vocab_size": vocab_size}))
    return tmp_path


def write_settings(folder, **settings):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_ids_are_those_of_the_names_in_the_tokenizer(folder):
    checkpoint = Checkpoint.open(folder)
    tokenizer, special = checkpoint.tokenizer, checkpoint.special_tokens
    texts = [tokenizer.token_text(token_id) for token_id in (special.mask_id, special.eos_id, special.eot_id)]
    assert texts == ["<|mask|>", "<|endoftext|>", "<|role_end|>"]
    # A written mask is ordinary text.
    assert special.mask_id not in tokenizer.encode("a <|mask|> in a prompt")


def test_published_ids_stand_in_where_no_file_names_them(tmp_path):
    model = GOLDEN / "family" / "illada" / "models" / "tiny-8b-like"
    fields = json.loads((model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "vocab_size": 155136}))
    special = Checkpoint.open(tmp_path).special_tokens
    assert (special.mask_id, special.eos_id, special.eot_id) == (5, 2, None)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(UnsupportedCheckpointError, match="mask_token_id is None"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("bos", ["<|startoftext|>", {"content": "<|startoftext|>", "lstrip": False}])
@pytest.mark.parametrize("is_separate", [False, True])
def test_the_chat_format_is_the_checkpoints_template_and_texts_cannot_open_turns(folder, bos, is_separate):
    if is_separate:
        write_settings(folder, bos_token=bos)
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    else:
        write_settings(folder, bos_token=bos, chat_template=TEMPLATE)
    checkpoint = Checkpoint.open(folder)
    ids = checkpoint.tokenizer.encode_chat(CHAT)
    text = checkpoint.tokenizer.decode(ids, skip_special_tokens=False)
    assert text == "<|startoftext|>[user]Hello <|mask|><|role_end|><|role_end|>"
    assert ids.count(checkpoint.special_tokens.eot_id) == 1
    assert checkpoint.special_tokens.mask_id not in ids


def test_a_checkpoint_without_a_template_has_no_chat(folder):
    definition = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(definition.replace("<|start_header_id|>", "<|other|>"))
    with pytest.raises(InvalidParameterError, match="which chat needs; send a prompt instead"):
        Checkpoint.open(folder).tokenizer.encode_chat(CHAT)


@pytest.mark.parametrize("template", ["{% for %}", 7])
def test_a_damaged_template_is_refused(folder, template):
    write_settings(folder, chat_template=template)
    with pytest.raises(UnsupportedCheckpointError, match=r"chat.template"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(("family", "model"), MODELS)
def test_a_saved_model_has_the_published_names_and_loads_bit_for_bit(tmp_path, family, model):
    original = GOLDEN / "family" / family / "models" / model
    network = network_of(family, model)
    special_tokens = network.special_tokens
    settings = {"tokenizer_file": None, "special_tokens": special_tokens, "dtype": torch.float32}
    save_checkpoint(network, tmp_path, **settings)
    saved, published = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path, original))
    ids = {"mask_token_id", "eos_token_id", "eot_token_id", "pad_token_id"}
    assert {name: saved.get(name) for name in published.keys() & saved.keys() - ids - _WRITTEN_ANEW} == {
        name: value for name, value in published.items() if name in saved.keys() - ids - _WRITTEN_ANEW
    }
    assert saved["architectures"] == published["architectures"]
    tensors, expected = load_file(tmp_path / "model.safetensors"), load_file(original / "model.safetensors")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    again = load_checkpoint(tmp_path)
    assert again.special_tokens == special_tokens
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in network.state_dict().items())


def test_a_saved_model_keeps_the_chat_format_of_its_tokenizer(folder, tmp_path):
    write_settings(folder, chat_template=TEMPLATE, eos_token="<|endoftext|>")
    (folder / "model.safetensors").unlink(missing_ok=True)
    checkpoint = Checkpoint.open(folder)
    network = Network(checkpoint.config)
    network.special_tokens = checkpoint.special_tokens
    out = tmp_path / "out"
    settings = {"special_tokens": checkpoint.special_tokens, "dtype": torch.float32}
    save_checkpoint(network, out, tokenizer_file=folder / "tokenizer.json", **settings)
    again = Checkpoint.open(out)
    assert again.tokenizer.encode_chat(CHAT) == checkpoint.tokenizer.encode_chat(CHAT)
    assert again.special_tokens == checkpoint.special_tokens


def test_a_saved_model_keeps_the_defaults_of_its_sampler_and_what_nobody_knows(tmp_path):
    network = network_of("dream", "tiny-7b-like")
    published = {"alg": "entropy", "top_p": 0.9, "no_field_of_ours": {"a": 1}, "transformers_version": "4.46.2"}
    fitted = {"decision_temperature": 2.0, "mask_token_id": 1, "eos_token_id": [1, 2]}
    settings = {"tokenizer_file": None, "special_tokens": network.special_tokens, "dtype": torch.float32}
    save_checkpoint(network, tmp_path, **settings, generation_config={**published, **fitted})
    again = Checkpoint.open(tmp_path)
    assert dict(again.sampler.defaults) == {"remasking": "entropy", "top_p": 0.9}
    assert (again.special_tokens, again.decision_temperature) == (network.special_tokens, 1.0)
    saved = json.loads((tmp_path / "generation_config.json").read_text())
    assert {name: saved[name] for name in published} == published
