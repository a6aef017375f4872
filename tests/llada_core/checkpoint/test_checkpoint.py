import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_core import DEMO_FOLDER, UnsupportedCheckpointError, load_checkpoint, load_model, load_tokenizer
from llada_core.checkpoint.load import Checkpoint
from llada_core.checkpoint.placement import Placement
from llada_core.checkpoint.save import save_checkpoint
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.network import Network
from llada_core.text.special_tokens import resolve_special_tokens
from tests.conftest import GOLDEN

TINY = GOLDEN / "models" / "tiny-mha"

LLADA_8B = {
    **json.loads((TINY / "config.json").read_text()),
    "d_model": 4096,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "mlp_hidden_size": 12288,
    "max_sequence_length": 4096,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "mask_token_id": 126336,
    "eos_token_id": 126081,
    "pad_token_id": 126081,
    "torch_dtype": "bfloat16",
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    """The 291 tensors of LLaDA-8B, written out from the published description."""
    prefix = "model.transformer"
    shapes = {
        f"{prefix}.wte.weight": (126464, 4096),
        f"{prefix}.ln_f.weight": (4096,),
        f"{prefix}.ff_out.weight": (126464, 4096),
    }
    for layer in range(32):
        block = f"{prefix}.blocks.{layer}"
        shapes |= {f"{block}.{name}.weight": (4096,) for name in ("attn_norm", "ff_norm")}
        shapes |= {f"{block}.{name}.weight": (4096, 4096) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        shapes |= {f"{block}.{name}.weight": (12288, 4096) for name in ("ff_proj", "up_proj")}
        shapes[f"{block}.ff_out.weight"] = (4096, 12288)
    return shapes


def test_llada_8b_has_the_published_names_and_shapes():
    with torch.device("meta"):
        model = Network(LLaDAConfig.from_dict(LLADA_8B))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == published_shapes()
    assert len(published_shapes()) == 291
    assert sum(weight.numel() for weight in model.parameters()) == 8_015_581_184


@pytest.mark.parametrize("is_sharded", [False, True], ids=["single file", "sharded index"])
def test_every_published_name_loads(tmp_path, is_sharded):
    # The real names at a width that fits into memory: all 291 tensors are read from disk and found in the model.
    config = {**LLADA_8B, "d_model": 8, "n_heads": 2, "n_kv_heads": 2, "mlp_hidden_size": 24, "vocab_size": 126464}
    narrow = {4096: 8, 12288: 24, 126464: 126464}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randn([narrow[size] for size in shape], generator=generator).bfloat16()
        for name, shape in published_shapes().items()
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    if is_sharded:
        names = sorted(tensors)
        shards = {"model-00001-of-00002.safetensors": names[:150], "model-00002-of-00002.safetensors": names[150:]}
        for file, own in shards.items():
            save_file({name: tensors[name] for name in own}, tmp_path / file, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {name: file for file, own in shards.items() for name in own}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = load_checkpoint(tmp_path, dtype="bfloat16")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert (model.special_tokens.mask_id, model.special_tokens.eos_id, model.special_tokens.eot_id) == (
        126336,
        126081,
        126348,
    )


def test_the_dtype_is_float32_on_a_cpu_unless_another_is_asked_for():
    assert load_model(TINY).dtype == torch.float32
    assert load_model(TINY, dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(ValueError, match="dtype is 'int4'"):
        load_model(TINY, dtype="int4")


def copy_of_tiny(tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(TINY, folder)
    return folder


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_loading_says_how_much_it_has_read(quantization):
    shares = []
    checkpoint, placement = Checkpoint.open(TINY), Placement.of("cpu", "auto", quantization)
    checkpoint.load_model(placement, on_progress=shares.append)
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    if quantization == "none":
        checkpoint.load_network(placement, on_progress=shares.append)
        assert shares[-1] == 1


def test_missing_and_left_over_tensors_are_errors(tmp_path):
    folder = copy_of_tiny(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    last = tensors.pop("model.transformer.ln_f.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedCheckpointError, match=r"1 missing tensors.*ln_f"):
        load_model(folder)
    save_file(
        {**tensors, "model.transformer.ln_f.weight": last, "extra": last.clone()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(UnsupportedCheckpointError, match=r"1 unexpected tensors.*extra"):
        load_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds a list; it must hold a JSON object"),
        ("{}", "weight_map is None; it must name the file of every tensor"),
        ('{"weight_map": [1]}', r"weight_map is \[1\]"),
        ('{"weight_map": {"a": 1}}', "weight_map names 1; it must name .safetensors files of the same folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "weight_map names '/etc/passwd'"),
        ('{"weight_map": {"a": "../model.safetensors"}}', r"weight_map names '\.\./model\.safetensors'"),
        ("{", "is not JSON"),
    ],
)
def test_an_index_that_names_no_files_is_refused(tmp_path, content, message):
    folder = copy_of_tiny(tmp_path)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises((UnsupportedCheckpointError, OSError), match=message):
        load_model(folder)


def test_weights_that_are_cut_short_are_refused(tmp_path):
    folder = copy_of_tiny(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UnsupportedCheckpointError, match="cannot be read"):
        load_model(folder)


def test_a_config_that_is_not_json_is_refused(tmp_path):
    folder = copy_of_tiny(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(OSError, match="JSON"):
        load_model(folder)


def test_pickled_weights_are_never_read(tmp_path):
    folder = copy_of_tiny(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        load_model(folder)


def test_a_path_that_is_no_checkpoint_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a folder nor"):
        load_model("./nowhere")


def test_a_folder_without_a_tokenizer_has_none():
    assert load_tokenizer(TINY) is None


def test_special_ids_come_from_the_generation_config_first(tmp_path):
    folder = copy_of_tiny(tmp_path)
    assert Checkpoint.open(folder).special_tokens.eot_id == 318
    (folder / "generation_config.json").write_text(json.dumps({"mask_token_id": 7}))
    special_tokens = Checkpoint.open(folder).special_tokens
    assert (special_tokens.mask_id, special_tokens.eos_id, special_tokens.eot_id) == (7, 317, None)


def test_special_ids_fall_back_to_tokenizer_and_published_ids(tmp_path):
    tokens = {"<|mdm_mask|>": 5, "<|endoftext|>": 6}
    found = resolve_special_tokens(tmp_path, {"vocab_size": 10}, tokens.get)
    assert (found.mask_id, found.eos_id, found.eot_id) == (5, 6, None)
    found = resolve_special_tokens(tmp_path, {"vocab_size": 126464}, lambda _: None)
    assert (found.mask_id, found.eos_id, found.eot_id) == (126336, 126081, 126348)
    with pytest.raises(UnsupportedCheckpointError, match="mask_token_id is None"):
        resolve_special_tokens(tmp_path, {"vocab_size": 10}, lambda _: None)


@pytest.mark.parametrize(
    ("listed", "eot", "found"),
    [
        ([7, 6], None, (6, 7)),
        ([6, 7], 7, (6, 7)),
        ([7, 6, 7], None, (6, 7)),
        ([6], None, (6, None)),
        ([8, 7], None, (8, 7)),
        ([7], 7, (6, 7)),
    ],
)
def test_a_list_of_ids_that_end_a_text_is_eos_and_eot(tmp_path, listed, eot, found):
    tokens = {"<|mdm_mask|>": 5, "<|endoftext|>": 6}
    ids = {"eos_token_id": listed, **({} if eot is None else {"eot_token_id": eot})}
    (tmp_path / "generation_config.json").write_text(json.dumps(ids))
    special = resolve_special_tokens(tmp_path, {"vocab_size": 10}, tokens.get)
    assert (special.eos_id, special.eot_id) == found


@pytest.mark.parametrize("listed", [[6, 7, 8], [], [{}], ["</s>"], [6, 99], [6] * 9, [[6]]])
def test_a_list_that_is_not_eos_and_eot_is_refused(tmp_path, listed):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
    with pytest.raises(UnsupportedCheckpointError, match=r"eo[st]_token_id is"):
        resolve_special_tokens(tmp_path, {"vocab_size": 10}, {"<|mdm_mask|>": 5, "<|endoftext|>": 6}.get)


LFS_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def demo_copy(folder):
    return Path(shutil.copytree(DEMO_FOLDER, folder / "demo", ignore=shutil.ignore_patterns("README.md")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", LFS_POINTER, "tokenizer.json: is a git-lfs pointer"),
        ("tokenizer.json", "", "tokenizer.json: cannot be read as a tokenizer"),
        ("tokenizer.json", "{}", "tokenizer.json: cannot be read as a tokenizer"),
        ("tokenizer.json", '{"version": "1.0", "added_tok', "tokenizer.json: cannot be read as a tokenizer"),
        ("tokenizer.json", "[]", "tokenizer.json: cannot be read as a tokenizer"),
        ("config.json", "[]", "config.json: holds a list; it must hold a JSON object"),
        ("config.json", '"text"', "config.json: holds a str"),
        ("config.json", LFS_POINTER, "config.json: is a git-lfs pointer"),
        ("config.json", '{"architectures"', "config.json: is not JSON"),
        ("generation_config.json", "{", "generation_config.json: is not JSON"),
        ("generation_config.json", "[1]", "generation_config.json: holds a list"),
        ("model.safetensors", LFS_POINTER, "model.safetensors: is a git-lfs pointer"),
        ("model.safetensors", "", "model.safetensors: cannot be read as safetensors"),
        ("model.safetensors", "x" * 4096, "model.safetensors: cannot be read as safetensors"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path, name, content, message):
    folder = demo_copy(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises((UnsupportedCheckpointError, OSError)) as caught:
        load_model(folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_were_cut_are_named(tmp_path):
    folder = demo_copy(tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(UnsupportedCheckpointError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_model(folder)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_written_files_have_the_mode_that_the_umask_asks_for(tmp_path, umask):
    network = load_checkpoint(TINY)
    before = os.umask(umask)
    try:
        tokenizer = DEMO_FOLDER / "tokenizer.json"
        save_checkpoint(
            network, tmp_path, tokenizer_file=tokenizer, special_tokens=network.special_tokens, dtype=torch.float32
        )
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o666 & ~umask}
