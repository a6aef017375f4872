"""Find a checkpoint's files: in a local folder, or in a snapshot of a hub repository."""

import os
from pathlib import Path

from huggingface_hub import snapshot_download

from llada_core.errors import shorten
from llada_core.files import read_json

ADAPTER_CONFIG = "adapter_config.json"

_FILES = ("config.json", "generation_config.json", "tokenizer.json", "*.safetensors", "model.safetensors.index.json")


def resolve_folder(path: str | os.PathLike[str], *, revision: str | None = None, with_weights: bool = True) -> Path:
    """Return the folder of a checkpoint: `path` itself, or the hub's snapshot of the id `path`, downloaded once.

    Args:
        with_weights: False fetches only config and tokenizer.

    Raises:
        FileNotFoundError: no such folder, no config.json in it, or nothing under that id on the hub.
    """
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"{folder}: {_what_is_missing(folder)}")
        return folder
    name = str(path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name}: neither a folder nor a Hugging Face id (owner/name)")
    try:
        patterns = [pattern for pattern in _FILES if with_weights or "safetensors" not in pattern]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises many types of error, its own and the network's
        raise FileNotFoundError(f"{name}: no such folder here, and from the hub: {error}") from None


def _what_is_missing(folder: Path) -> str:
    if not (folder / ADAPTER_CONFIG).exists():
        return "no config.json in this folder"
    base = shorten(str(read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path") or "its base model"))
    return (
        f"a LoRA adapter, not a model: load {base} with this folder as the adapter (--adapter), or merge the two with "
        "`llada-train export --adapter`"
    )
