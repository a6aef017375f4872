"""Model folders from strangers: whatever a file says gets one sentence, and never takes memory or time."""

import json
import os
import re
import shutil
import struct
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel

from llada_core import DEMO_FOLDER, UnsupportedCheckpointError, load_model, load_tokenizer
from llada_core.checkpoint.adapter import Adapter
from tests.conftest import GOLDEN
from tests.random_cases import cases

TINY = GOLDEN / "models" / "tiny-mha"
FILES = ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "stranger"))


def with_fields(folder, name="config.json", **fields):
    content = {**json.loads((folder / name).read_text()), **fields}
    # A float without a value in JSON: Python writes and reads 1e400 as infinity.
    (folder / name).write_text(json.dumps(content).replace("Infinity", "1e400"))


def refusal(folder, **options):
    """The one sentence with which a folder is refused."""
    before = psutil.Process().memory_info().rss
    with pytest.raises((UnsupportedCheckpointError, OSError)) as caught:
        load_model(folder, **options)
    assert psutil.Process().memory_info().rss - before < 200 << 20
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_layers": 10**9}, "n_layers is 1000000000; it must be from 1 to 10,000"),
        ({"n_layers": True}, "n_layers is True; it must be a whole number"),
        ({"n_layers": "3"}, "n_layers is '3'; it must be a whole number"),
        ({"max_sequence_length": 10**12}, "max_sequence_length is 1000000000000; it must be from 1 to 1,048,576"),
        ({"vocab_size": 10**30}, "vocab_size is 1000000000000000000000000000000; it must be from 1 to 16,777,216"),
        ({"d_model": 10**9}, "d_model is 1000000000; it must be from 1 to 1,048,576"),
        ({"mlp_hidden_size": 10**12}, "mlp_hidden_size is 1000000000000; it must be from 1 to 16,777,216"),
        ({"mlp_hidden_size": None, "mlp_ratio": "x" * 10**6}, "mlp_ratio is 'xxxxxxxxxxxx...xxxxxxxxxxxxx'; it"),
        ({"n_heads": 0}, "n_heads is 0; it must be from 1"),
        ({"n_heads": -4}, "n_heads is -4; it must be from 1"),
        ({"n_heads": 5}, "d_model (64) must be a multiple of n_heads (5)"),
        ({"n_kv_heads": 0}, "n_kv_heads is 0; it must be from 1"),
        ({"rope_theta": float("inf")}, "rope_theta is inf; it must be from 1 to 1,000,000,000,000"),
        ({"rope_theta": 0}, "rope_theta is 0; it must be from 1"),
        ({"rope_theta": 10**400}, "it must be from 1 to 1,000,000,000,000"),
        ({"rope_theta": float("nan")}, "config.json: is not JSON: NaN is no number"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0; it must be from 1e-12 to 1"),
        ({"rms_norm_eps": True}, "rms_norm_eps is True; it must be a number"),
        ({"weight_tying": "no"}, "weight_tying is 'no'; it must be true or false"),
        ({"eos_token_id": "x"}, "eos_token_id is 'x'; it must be a whole number, a list or null"),
        ({"mask_token_id": [1]}, "mask_token_id is [1]; it must be a whole number or null"),
        ({"torch_dtype": "load"}, "dtype is 'load'; it must be one of float32, bfloat16, float16, or null"),
        ({"d_model": 2**12, "n_heads": 1, "n_kv_heads": 1, "max_sequence_length": 2**20}, "must be at most 67,108,864"),
        ({"d_model": 2**20, "n_heads": 2**14, "n_kv_heads": 2**14}, "mismatched tensors in the weights"),
        ({"n_layers": 9999}, "missing tensors in the weights"),
        ({"\x1b[31m": 1}, r"config.json: \x1b[31m is 1; this field is unknown"),
        ({"architectures": ["LLaDAModelLM"] * 10**5}, "architectures is ['LLaDAModelLM', 'LLaDAModelLM'"),
        ({"to_dict": 7, "shape": {}}, "this field is unknown"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_config_out_of_bounds_is_refused_before_anything_is_made(folder, fields, message):
    with_fields(folder, **fields)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask_token_id": 10**9}, "mask_token_id is 1000000000"),
        ({"mask_token_id": True}, "mask_token_id is True"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>'"),
        ({"eot_token_id": -1}, "eot_token_id is -1"),
        ({"eot_token_id": {"a": [1]}}, "eot_token_id is {'a': [1]}"),
        ({"mask_token_id": 317}, "mask_token_id is 317; it must differ from eos_token_id and eot_token_id"),
    ],
    ids=str,
)
def test_special_tokens_that_are_none_are_refused(folder, fields, message):
    with_fields(folder, "generation_config.json", **fields)
    assert message in refusal(folder)


@pytest.mark.parametrize("temperature", [0, -1, 10**400, 1e-9, True, "1", [1]], ids=lambda value: str(value)[:8])
def test_a_decision_temperature_that_is_none_is_refused(folder, temperature):
    with_fields(folder, "generation_config.json", decision_temperature=temperature)
    assert "it must be a number from 0.001 to 1000" in refusal(folder)


def become_pipe(file):
    os.mkfifo(file)


def become_device(file):
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("become", [become_pipe, Path.mkdir, become_device], ids=["pipe", "folder", "device"])
@pytest.mark.parametrize("name", [*FILES, "model.safetensors.index.json", "shard.safetensors"])
def test_what_is_no_regular_file_is_never_opened(folder, name, become):
    if "index" in name or "shard" in name:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "shard.safetensors"}}')
    (folder / name).unlink(missing_ok=True)
    become(folder / name)
    assert f"{name}: is a folder, a pipe or a device; it must be a regular file" in refusal(folder)


def test_the_links_of_the_hubs_cache_are_followed(folder):
    for file in list(folder.iterdir()):
        file.rename(folder.parent / file.name)
        file.symlink_to(folder.parent / file.name)
    assert load_model(folder).shape.num_layers == 3


def test_a_shard_that_is_listed_and_missing_is_named(folder):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "b.safetensors" in refusal(folder)
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    assert "which a.safetensors holds too" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "is JSON that is nested too deep"),
        ('{"n_layers": 1' + "0" * 5000 + "}", "is not JSON"),
        ("{}" + " " * (16 << 20), "is larger than 16777216 bytes"),
        ('{"a": "\udcff"}', "is not UTF-8 text: byte 7"),
    ],
    ids=["deep", "digits", "large", "bytes"],
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_json_that_would_take_time_or_memory_is_refused(folder, name, content, message):
    (folder / name).write_text(content, errors="surrogateescape")
    assert f"{name}: {message}" in refusal(folder)


def write_header(file, tensors, *, size):
    """A file of zeros, without its blocks on the disk, that begins with a header of safetensors."""
    header = json.dumps(tensors).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(file, 8 + len(header) + size)


def test_weights_of_terabytes_are_refused(folder):
    # Zeros that take no room on the disk: config and header agree.
    with_fields(folder, d_model=2**18, n_heads=2**12, n_kv_heads=2**12, mlp_hidden_size=2**18, n_layers=1)
    width, vocabulary = 2**18, 320
    shapes = {f"blocks.0.{name}": [width, width] for name in ("q_proj", "k_proj", "v_proj", "attn_out", "ff_proj")}
    shapes |= {f"blocks.0.{name}": [width, width] for name in ("up_proj", "ff_out")}
    shapes |= {"blocks.0.attn_norm": [width], "blocks.0.ff_norm": [width], "ln_f": [width]}
    shapes |= {"wte": [vocabulary, width], "ff_out": [vocabulary, width]}
    tensors, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        offsets = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        tensors[f"model.transformer.{name}.weight"] = offsets
    write_header(folder / "model.safetensors", tensors, size=end)
    # torch refuses to map a file that is larger than the machine's memory.
    assert re.search(r"cannot be mapped: unable to mmap 19\d+ bytes|the weights take 1,\d+\.\d GB", refusal(folder))


def test_weights_that_do_not_fit_into_this_machine_are_refused(folder, monkeypatch):
    monkeypatch.setattr("llada_core.checkpoint.load.total_memory", lambda: 100_000)
    assert "the weights take 0.0 GB, and this machine has 0.0 GB of memory; choose" in refusal(folder)


def test_a_header_out_of_bounds_is_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    assert "its header has 4611686018427387904 bytes; it must have at most 16777216" in refusal(folder)


def test_quantised_weights_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.transformer.ln_f.weight"] = tensors["model.transformer.ln_f.weight"].char()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "ln_f.weight is stored as I8; it must be one of F64, F32, BF16, F16" in refusal(folder)


TOKENIZER = json.loads((DEMO_FOLDER / "tokenizer.json").read_text())


@pytest.mark.parametrize(
    "fields",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////////////////"}},
        {"normalizer": {"type": "Prepend", "prepend": ""}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"model": {**TOKENIZER["model"], "continuing_subword_prefix": "##########"}},
        {"added_tokens": [{"id": "x"}]},
        {"added_tokens": [], "model": []},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_a_tokenizer_that_panics_is_refused_like_any_other(folder, fields):
    (folder / "tokenizer.json").write_text(json.dumps({**TOKENIZER, **fields}))
    assert "tokenizer.json: cannot be read as a tokenizer: " in refusal(folder)


def test_a_tokenizer_of_many_megabytes_is_refused(folder):
    (folder / "tokenizer.json").write_bytes(b"{")
    os.truncate(folder / "tokenizer.json", 1 << 40)
    assert "tokenizer.json: is larger than 67108864 bytes" in refusal(folder)


def test_a_tokenizer_neither_cuts_nor_fills_up_texts(folder):
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps({**TOKENIZER, "padding": padding, "truncation": truncation}))
    text = "Once upon a time there was"
    assert load_tokenizer(folder).encode(text) == load_tokenizer(DEMO_FOLDER).encode(text)


Q_PROJ = "base_model.model.model.transformer.blocks.0.q_proj"


@pytest.fixture
def adapter(tmp_path):
    """An adapter of the tiny model."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    zeros = load_file(TINY / "model.safetensors")["model.transformer.blocks.0.q_proj.weight"] * 0
    save_file({f"{Q_PROJ}.lora_A.weight": zeros[:2], f"{Q_PROJ}.lora_B.weight": zeros[:, :2].contiguous()},
              folder / "adapter_model.safetensors")  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
    assert Adapter(folder).updates
    return folder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_alpha": None}, "lora_alpha of model.transformer.blocks.0.q_proj is None; it must be a number"),
        ({"lora_alpha": "8"}, "is '8'; it must be a number"),
        ({"lora_alpha": float("inf")}, "is inf; it must be a number"),
        ({"lora_alpha": 10**400}, "it must be a number from -1,000,000 to 1,000,000"),
        ({"alpha_pattern": {"q_proj": [1]}}, r"is [1]; it must be a number"),
        ({"alpha_pattern": [1]}, "alpha_pattern is [1]; it must be an object"),
        ({"alpha_pattern": {r"(.*.*)*z": 1}}, "alpha_pattern has the key '(.*.*)*z'; it must be the name of a module"),
        ({"alpha_pattern": {"\\": 1}}, "alpha_pattern has the key"),
        ({"r": "x" * 10**5}, "has rank 2, and its config says r = 'xxx"),
        ({"peft_type": ["LORA"] * 10**5}, "peft_type is ['LORA', 'LORA'"),
        ({"bias": {}}, "bias is {}; it must be 'none'"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_adapter_out_of_bounds_is_refused(adapter, fields, message):
    with_fields(adapter, "adapter_config.json", **fields)
    assert message in refusal(TINY, adapter=adapter)


@pytest.mark.parametrize("become", [become_pipe, Path.mkdir, become_device], ids=["pipe", "folder", "device"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_is_no_regular_file_is_never_opened(adapter, name, become):
    (adapter / name).unlink()
    become(adapter / name)
    assert "it must be a regular file" in refusal(TINY, adapter=adapter)


def test_an_adapter_of_terabytes_is_refused_by_its_shapes(adapter):
    rows = 2**38
    tensors = {
        f"{Q_PROJ}.lora_A.weight": {"dtype": "F32", "shape": [1, rows], "data_offsets": [0, 4 * rows]},
        f"{Q_PROJ}.lora_B.weight": {"dtype": "F32", "shape": [rows, 1], "data_offsets": [4 * rows, 8 * rows]},
    }
    write_header(adapter / "adapter_model.safetensors", tensors, size=8 * rows)
    with_fields(adapter, "adapter_config.json", r=1)
    message = refusal(TINY, adapter=adapter)
    assert re.search(rf"unable to mmap|updates \S+\.q_proj\.weight of shape \[{rows}, {rows}\]", message)


@pytest.mark.parametrize("ids", [[], [1, "2"], [True, False], {"wte": 5}, [-1, 2], "ab"], ids=str)
def test_rows_for_what_is_no_token_are_refused(adapter, ids):
    rows = load_file(TINY / "model.safetensors")["model.transformer.wte.weight"][:2]
    file = adapter / "adapter_model.safetensors"
    name = "base_model.model.model.transformer.wte.token_adapter.trainable_tokens_delta"
    save_file({**load_file(file), name: rows}, file)
    with_fields(adapter, "adapter_config.json", trainable_token_indices=ids)
    assert "does not fit trainable_token_indices" in refusal(TINY, adapter=adapter)


numbers = st.sampled_from([0, -1, 1, 2.5, 10**12, 10**40, -(2**63), 1e308, float("inf"), True, False, None])
values = st.recursive(
    numbers | st.text(max_size=6) | st.sampled_from(["float32", "load", "x" * 10_000, "a.safetensors", "../a", "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def reused(tmp_path_factory):
    """A folder with every kind of file; a test that changes one restores it."""
    folder = Path(shutil.copytree(TINY, tmp_path_factory.mktemp("reused") / "model"))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    vocab = {character: index for index, character in enumerate(ByteLevel.alphabet())}
    (folder / "tokenizer.json").write_text(
        json.dumps({**TOKENIZER, "model": {**TOKENIZER["model"], "vocab": vocab, "merges": []}})
    )
    return folder


def loads_or_refuses(folder):
    try:
        load_model(folder)
    except (UnsupportedCheckpointError, OSError) as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000


JSON_FILES = ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors.index.json")


@settings(max_examples=cases(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(JSON_FILES), data=st.data())
def test_any_values_in_the_fields_of_a_folder_load_or_are_refused(reused, name, data):
    original = (reused / name).read_text()
    fields = json.loads(original)
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(fields)) | st.text(max_size=5), values, min_size=1))
    (reused / name).write_text(json.dumps({**fields, **changed}).replace("Infinity", "1e400"))
    try:
        loads_or_refuses(reused)
    finally:
        (reused / name).write_text(original)


@settings(max_examples=cases(90), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([*JSON_FILES, "a.safetensors"]), data=st.data())
def test_any_bytes_in_the_files_of_a_folder_load_or_are_refused(reused, name, data):
    original = (reused / name).read_bytes()
    start = data.draw(st.integers(0, min(len(original), 3000)))
    (reused / name).write_bytes(original[:start] + data.draw(st.binary(max_size=8)) + original[start + 4 :])
    try:
        loads_or_refuses(reused)
    finally:
        (reused / name).write_bytes(original)
