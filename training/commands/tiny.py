"""The `tiny` command: a miniature of an architecture with random weights, to try a family's whole path without weights.

The tokenizer is the demo's, whose special tokens are called as in the architecture's checkpoints. What the model writes
means nothing; it loads, serves and trains as a checkpoint of real size does.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from llada_core.checkpoint.load import DEMO_FOLDER, read_tokenizer
from llada_core.checkpoint.save import save_checkpoint
from llada_core.model.config import ModelConfig
from llada_core.model.network import Network
from llada_core.model.registry import ARCHITECTURES
from llada_core.text.special_tokens import BOS_TOKEN, EOS_TOKEN, EOT_TOKEN, MASK_TOKEN, PublishedTokens, SpecialTokens
from llada_core.text.tokenizer import CHAT_TEMPLATE, Tokenizer
from training.errors import DataError


def miniatures() -> Mapping[str, type[ModelConfig]]:
    """The architectures by the names that the command takes: those of the published classes."""
    return {config.architecture: config for config in ARCHITECTURES.values()}


def run_tiny(name: str, output_dir: Path, *, seed: int, log: Callable[[str], None]) -> None:
    """Write a checkpoint folder of random weights.

    Raises:
        DataError: an unknown architecture, or a folder that is not empty.
    """
    architectures = miniatures()
    if name not in architectures:
        raise DataError(f"ARCHITECTURE is {name}; it must be one of {', '.join(sorted(architectures))}")
    if output_dir.exists() and any(output_dir.iterdir()):
        raise DataError(f"--output-dir {output_dir}: is not empty")
    architecture = architectures[name]
    published = architecture.published_tokens
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_tokenizer(folder, published, with_template=not architecture.has_own_chat_format)
        tokenizer = read_tokenizer(folder, architecture)
        assert tokenizer is not None
        special_tokens = _special_tokens(tokenizer, published)
        torch.manual_seed(seed)
        sizes = dict.fromkeys(architecture.vocabulary_fields, len(tokenizer))
        model = Network(architecture(**{**architecture.miniature, **sizes}))
        output_dir.mkdir(parents=True, exist_ok=True)
        save_checkpoint(
            model,
            output_dir,
            tokenizer_file=folder / "tokenizer.json",
            special_tokens=special_tokens,
            dtype=torch.float32,
        )
    size = sum(weight.numel() for weight in model.parameters())
    log(f"{output_dir}: {architecture.architecture}, {size:,} random weights")


def _write_tokenizer(folder: Path, published: PublishedTokens, *, with_template: bool) -> None:
    definition, template = (DEMO_FOLDER / "tokenizer.json").read_text(), CHAT_TEMPLATE
    names = {MASK_TOKEN: published.mask, EOS_TOKEN: published.eos, EOT_TOKEN: published.eot}
    for token, name in names.items():
        definition, template = (text.replace(token, name or token) for text in (definition, template))
    (folder / "tokenizer.json").write_text(definition)
    if with_template:
        settings = {"bos_token": BOS_TOKEN, "eos_token": published.eos or EOS_TOKEN, "chat_template": template}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _special_tokens(tokenizer: Tokenizer, published: PublishedTokens) -> SpecialTokens:
    names = (published.mask, published.eos or EOS_TOKEN, published.eot or EOT_TOKEN)
    mask_id, eos_id, eot_id = (tokenizer.token_to_id(name) for name in names)
    assert mask_id is not None and eos_id is not None
    return SpecialTokens(mask_id, eos_id, eot_id)
