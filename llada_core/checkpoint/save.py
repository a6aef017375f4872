"""Write a checkpoint folder that this project and LLaDA's own code load."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llada_core.errors import UnsupportedCheckpointError
from llada_core.files import make_empty, move_files, share
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.text.special_tokens import BOS_TOKEN, EOS_TOKEN, MASK_TOKEN, SpecialTokens
from llada_core.text.tokenizer import CHAT_TEMPLATE

if TYPE_CHECKING:
    from llada_core.model.network import Network

# The location of LLaDA's own loading code, which `AutoModel.from_pretrained(folder, trust_remote_code=True)` fetches.
_AUTO_MAP = {
    auto_class: f"GSAI-ML/LLaDA-8B-Instruct--{name}"
    for auto_class, name in (
        ("AutoConfig", "configuration_llada.LLaDAConfig"),
        ("AutoModel", "modeling_llada.LLaDAModelLM"),
        ("AutoModelForCausalLM", "modeling_llada.LLaDAModelLM"),
    )
}


def save_checkpoint(
    model: "Network",
    folder: Path,
    *,
    tokenizer_file: Path | None,
    special_tokens: SpecialTokens,
    dtype: torch.dtype,
) -> None:
    """Write a checkpoint into `folder` that this server and LLaDA's own code load.

    The files are written to a temporary folder and moved in, `config.json` last: until then the folder is not a
    checkpoint. Older weights are deleted first, since an old single file would be loaded in place of new shards.

    Args:
        tokenizer_file: copied, with a config for other programs; None for a model without a tokenizer.

    Raises:
        UnsupportedCheckpointError: a model of another architecture than LLaDA's.
    """
    if not isinstance(model.config, LLaDAConfig):
        raise UnsupportedCheckpointError(
            f"{folder}: architectures is {model.config.architectures}; only LLaDA's can be saved so far"
        )
    aside = make_empty(folder / "incomplete")
    config = LLaDAConfig(
        **{
            **model.config.to_dict(),
            "mask_token_id": special_tokens.mask_id,
            "eos_token_id": special_tokens.eos_id,
            "pad_token_id": special_tokens.eos_id,
            "dtype": dtype,
            "auto_map": _AUTO_MAP,
        }
    )
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    with _without_progress_bar():
        model.save_pretrained(aside, state_dict=state)
    config.save_pretrained(aside)
    generation = {
        "eos_token_id": special_tokens.eos_id,
        "eot_token_id": special_tokens.eot_id,
        "mask_token_id": special_tokens.mask_id,
        "pad_token_id": special_tokens.eos_id,
    }
    if tokenizer_file is not None:
        shutil.copyfile(tokenizer_file, aside / "tokenizer.json")
        (aside / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(config), indent=2) + "\n")
    (aside / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for old in (folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.safetensors.index.json")):
        old.unlink(missing_ok=True)
    for file in aside.iterdir():
        share(file)
    move_files(aside, folder, last="config.json")


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


def _tokenizer_config(config: LLaDAConfig) -> dict[str, Any]:
    """Return the content of `tokenizer_config.json`, which transformers needs beside `tokenizer.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS_TOKEN,
        "eos_token": EOS_TOKEN,
        "pad_token": EOS_TOKEN,
        "mask_token": MASK_TOKEN,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.max_sequence_length,
    }
