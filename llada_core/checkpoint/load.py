"""A checkpoint folder (or hub id) to a model that is ready to denoise, and back.

Weights are read from safetensors with this project's own class: no pickle, no remote code. What a folder lacks or has
too much is an error, since half-loaded weights generate fluent nonsense.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import snapshot_download

from llada_core.checkpoint.weights import CheckpointWeights
from llada_core.errors import InvalidParameterError
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.backends.cpu import QUANTIZATIONS, CPUMaskPredictor, Quantization
from llada_core.model.interface import MaskPredictor
from llada_core.text.chat_template import ChatTemplate
from llada_core.text.special_tokens import SpecialTokens, resolve_special_tokens
from llada_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llada_core.model.architectures.llada.network import LLaDAModelLM

DEMO_FOLDER = Path(__file__).parents[1] / "demo"

_FILES = ("config.json", "generation_config.json", "tokenizer.json", "*.safetensors", "model.safetensors.index.json")


def load_model(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    quantization: Quantization = "none",
    revision: str | None = None,
) -> MaskPredictor:
    """Load a mask predictor for inference: on a CPU with its weights laid out for oneDNN.

    Args:
        path: a folder with config.json and safetensors (one file or an index with shards), or a Hugging Face id.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the best at hand.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, the checkpoint's own on an accelerator;
            bfloat16 around quantised weights.
        quantization: `int8` quantises the linear maps when they are loaded; CPU only.

    Raises:
        UnsupportedCheckpointError: another architecture, a field not implemented, tensors missing or left over.
        FileNotFoundError: no such folder, or no config.json in it.
        InvalidParameterError: no such device, dtype or quantization, or not together.
    """
    if quantization not in QUANTIZATIONS:
        raise InvalidParameterError(
            f"quantization is {quantization!r}; it must be one of {', '.join(QUANTIZATIONS)}", "quantization"
        )
    torch_device = _resolve_device(device)
    if torch_device.type != "cpu":
        if quantization != "none":
            raise InvalidParameterError(
                f"quantization is {quantization!r}; it must be none on {torch_device.type}", "quantization"
            )
        return load_checkpoint(path, device=device, dtype=dtype, revision=revision).eval().requires_grad_(False)
    folder = resolve_folder(path, revision=revision)
    config = LLaDAConfig.from_pretrained(folder)
    if dtype == "auto" and quantization == "int8":
        dtype = "bfloat16"
    torch_dtype = _resolve_dtype(dtype, torch_device, config)
    weights = CheckpointWeights(folder)
    weights.check(config.tensor_shapes())
    return CPUMaskPredictor(
        config, load_special_tokens(folder), weights.read, dtype=torch_dtype, quantization=quantization
    )


def load_checkpoint(
    path: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "auto", revision: str | None = None
) -> "LLaDAModelLM":
    """Load a checkpoint as the network it was trained as, ready to train; arguments and errors as `load_model`."""
    # Imported here: what is served from a CPU does not need it, and it takes two seconds.
    from llada_core.model.architectures.llada.network import LLaDAModelLM

    torch_device = _resolve_device(device)
    folder = resolve_folder(path, revision=revision)
    config = LLaDAConfig.from_pretrained(folder)
    torch_dtype = _resolve_dtype(dtype, torch_device, config)
    weights = CheckpointWeights(folder)
    shapes = config.tensor_shapes()
    weights.check(shapes)
    with torch.device("meta"):
        model = LLaDAModelLM(config)
    # A copy in any case: trained weights must not lie in a mapped file.
    state = {name: weights.read(name).to(torch_device, torch_dtype, copy=True) for name in shapes}
    model.load_state_dict(state, assign=True)
    model.special_tokens = load_special_tokens(folder)
    return model


def load_tokenizer(
    path: str | os.PathLike[str], *, revision: str | None = None, chat_template: ChatTemplate | None = None
) -> Tokenizer | None:
    """The folder's tokenizer; None where it has none (token ids can still be served).

    Args:
        chat_template: in place of LLaDA's own chat format.
    """
    folder = resolve_folder(path, revision=revision)
    if not (folder / "tokenizer.json").exists():
        return None
    return Tokenizer.from_folder(folder, vocab_size=_read_config(folder)["vocab_size"], chat_template=chat_template)


def load_special_tokens(folder: Path) -> SpecialTokens:
    """The mask, EOS and EoT ids of a checkpoint folder."""
    tokenizer = load_tokenizer(folder)
    return resolve_special_tokens(folder, _read_config(folder), tokenizer.token_to_id if tokenizer else lambda _: None)


def resolve_folder(path: str | os.PathLike[str], *, revision: str | None = None, with_weights: bool = True) -> Path:
    """The folder of a checkpoint: `path` itself, or the hub's snapshot of the id `path`, downloaded once.

    Args:
        with_weights: False for config and tokenizer alone.
    """
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"{folder}: no config.json in this folder")
        return folder
    name = str(path)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(f"{name}: neither a folder nor a Hugging Face id (owner/name)")
    try:
        patterns = [pattern for pattern in _FILES if with_weights or "safetensors" not in pattern]
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises many kinds, from the network's to its own
        raise FileNotFoundError(f"{name}: no such folder here, and from the hub: {error}") from None


def _read_config(folder: Path) -> dict[str, int]:
    return json.loads((folder / "config.json").read_text())


def _resolve_device(device: str) -> torch.device:
    if device != "auto":
        try:
            found = torch.device(device)
        except RuntimeError:
            found = None
        if found is None or found.type not in ("cpu", "cuda", "mps"):
            raise InvalidParameterError(f"device is {device!r}; it must be auto, cpu, cuda, cuda:N or mps", "device")
        if found.type == "cuda" and not torch.cuda.is_available():
            raise InvalidParameterError(f"device is {device!r}; this machine has no CUDA device", "device")
        return found
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _resolve_dtype(dtype: str, device: torch.device, config: LLaDAConfig) -> torch.dtype:
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in named:
        return named[dtype]
    if dtype != "auto":
        raise InvalidParameterError(f"dtype is {dtype!r}; it must be one of auto, {', '.join(named)}", "dtype")
    if device.type == "cpu":
        return torch.float32
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.bfloat16
