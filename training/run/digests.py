"""Hashes by which a checkpoint recognises the model that its run started from."""

import hashlib
import json
from pathlib import Path

from llada_core.model.config import ModelConfig


def weights_digest(folder: Path) -> str:
    """A hash of all bytes of a checkpoint's weights; takes ten seconds for 16 GB."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as content:
            digest.update(file.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def config_digest(config: ModelConfig) -> str:
    """A hash of a model config."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:16]
