"""Write a checkpoint folder that this project and the authors' own code load: with the published names."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import save_torch_state_dict

from llada_core.checkpoint.decision_temperature import FIELD as DECISION_TEMPERATURE
from llada_core.checkpoint.generation_config import generation_file
from llada_core.files import make_empty, move_files, share
from llada_core.model.config import ModelConfig
from llada_core.text.special_tokens import BOS_TOKEN, EOS_TOKEN, MASK_TOKEN, SpecialTokens
from llada_core.text.tokenizer import CHAT_TEMPLATE

if TYPE_CHECKING:
    from llada_core.model.network import Network

# The files of a folder that belong to its tokenizer.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def save_checkpoint(
    model: "Network",
    folder: Path,
    *,
    tokenizer_file: Path | None,
    special_tokens: SpecialTokens,
    dtype: torch.dtype,
    generation_config: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint into `folder` that this server and the authors' own code load.

    The files are written to a temporary folder and moved in, `config.json` last: until then the folder is not a
    checkpoint. Older weights are deleted first, since an old single file would be loaded in place of new shards.

    Args:
        tokenizer_file: copied, with the chat format beside it or, where the format is LLaDA's, a config for other
            programs; None for a model without a tokenizer.
        generation_config: that of the checkpoint that the model comes from, which is kept but for the special ids and
            the decision temperature, which was fitted to other weights.
    """
    aside = make_empty(folder / "incomplete")
    config = replace(
        model.config,
        mask_token_id=special_tokens.mask_id,
        eos_token_id=special_tokens.eos_id,
        pad_token_id=special_tokens.eos_id,
        dtype=dtype,
    )
    save_torch_state_dict({name: tensor.to(dtype) for name, tensor in model.state_dict().items()}, aside)
    config.save(aside)
    generation = {
        **{name: value for name, value in (generation_config or {}).items() if name != DECISION_TEMPERATURE},
        "eos_token_id": special_tokens.eos_id,
        "eot_token_id": special_tokens.eot_id,
        "mask_token_id": special_tokens.mask_id,
        "pad_token_id": special_tokens.eos_id,
    }
    if tokenizer_file is not None:
        copy_tokenizer(tokenizer_file, aside)
        if config.has_own_chat_format:
            (aside / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(config), indent=2) + "\n")
            (aside / "chat_template.jinja").unlink(missing_ok=True)
    generation_file(aside).write_text(json.dumps(generation, indent=2) + "\n")
    stale = (folder / name for name in ("config.json", *_TOKENIZER_FILES[1:]))
    for old in (*stale, *folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        old.unlink(missing_ok=True)
    for file in aside.iterdir():
        share(file)
    move_files(aside, folder, last="config.json")


def copy_tokenizer(tokenizer_file: Path, folder: Path) -> None:
    """Copy a `tokenizer.json`, with the chat format that lies beside it."""
    for name in _TOKENIZER_FILES:
        source = tokenizer_file.with_name(name)
        if source.exists():
            shutil.copyfile(source, folder / name)


def _tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`, which transformers needs beside `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS_TOKEN,
        "eos_token": EOS_TOKEN,
        "pad_token": EOS_TOKEN,
        "mask_token": MASK_TOKEN,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.shape.max_sequence_length,
    }
