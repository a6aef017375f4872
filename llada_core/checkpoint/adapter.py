"""Low-rank adapters (LoRA, arXiv:2106.09685) in `peft`'s format, merged into the weights while these are read.

A merged model is a plain model: it costs nothing per step, and can be quantised. `peft` itself is not needed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llada_core.checkpoint.folder import ADAPTER_CONFIG
from llada_core.checkpoint.weights import CheckpointWeights, open_safetensors
from llada_core.errors import UnsupportedCheckpointError
from llada_core.files import read_json

_WEIGHTS_FILE = "adapter_model.safetensors"

# What a config may ask for beside plain LoRA; each would change the merged weights.
_UNSUPPORTED = ("use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "modules_to_save")

_ROWS = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.\w+)?")
_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.\w+)?\.weight")


@dataclass(frozen=True, slots=True)
class LowRank:
    """The update of one linear map: `scale` · B · A, of which A is [r, in] and B [out, r]."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight that it updates."""
        return self.up.shape[0], self.down.shape[1]

    def added_to(self, weight: Tensor) -> Tensor:
        """The updated weight in its own dtype; the sum is taken in float32."""
        update = self.scale * (self.up.float() @ self.down.float())
        return (weight.float() + update).to(weight.dtype)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """New rows [N, E] of an embedding or a head, for tokens that were trained with the adapters."""

    token_ids: tuple[int, ...]
    rows: Tensor

    def put_into(self, weight: Tensor) -> Tensor:
        """The weight with these rows, in its own dtype."""
        return weight.index_copy(0, torch.tensor(self.token_ids), self.rows.to(weight.dtype))


class Adapter:
    """An adapter folder: `adapter_config.json` and `adapter_model.safetensors`.

    Attributes:
        base_model: the folder or hub id that the adapter was trained on, as its config names it.
        updates: the update of each weight, by the weight's name.
        rows: the rows that are new in a weight, by the weight's name.
    """

    def __init__(self, folder: Path) -> None:
        """Read an adapter.

        Raises:
            FileNotFoundError: there is none in the folder.
            UnsupportedCheckpointError: another kind than plain LoRA, or damaged files.
        """
        self._folder = folder
        if not folder.is_dir():
            raise FileNotFoundError(f"adapter {folder}: no such folder")
        for name in (ADAPTER_CONFIG, _WEIGHTS_FILE):
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder}: no {name} in this folder, so it is no LoRA adapter")
        config = read_json(folder / ADAPTER_CONFIG)
        _require_plain_lora(config, folder)
        self.base_model: str | None = config.get("base_model_name_or_path")
        tensors = _read_tensors(folder / _WEIGHTS_FILE)
        self.rows: Mapping[str, TokenRows] = _read_rows(tensors, config, folder / _WEIGHTS_FILE)
        self.updates: Mapping[str, LowRank] = _read_updates(tensors, config, folder / _WEIGHTS_FILE)

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check that the model has every weight that the adapter updates, in the same shape.

        Raises:
            UnsupportedCheckpointError: it has not; the message names one.
        """
        for name, new in self.rows.items():
            if name not in shapes or shapes[name][1:] != new.rows.shape[1:] or max(new.token_ids) >= shapes[name][0]:
                raise UnsupportedCheckpointError(
                    f"{self._folder}: has rows of width {new.rows.shape[1]} for the tokens {list(new.token_ids)} of "
                    f"{name}, and the model has it in shape {list(shapes.get(name, ()))}"
                )
        for name, update in self.updates.items():
            if shapes.get(name) != update.shape:
                has = f"has it in shape {list(shapes[name])}" if name in shapes else "has no such weight"
                raise UnsupportedCheckpointError(
                    f"{self._folder}: updates {name} of shape {list(update.shape)}, and the model {has}; "
                    f"the adapter was trained on {self.base_model}"
                )

    def merged(self, name: str, weight: Tensor) -> Tensor:
        """The weight with its update; unchanged if the adapter has none for it."""
        if name in self.updates:
            return self.updates[name].added_to(weight)
        return self.rows[name].put_into(weight) if name in self.rows else weight


@dataclass(frozen=True, slots=True)
class AdaptedWeights:
    """Reads the tensors of a checkpoint with an adapter's updates merged."""

    weights: CheckpointWeights
    adapter: Adapter | None

    def read(self, name: str) -> Tensor:
        """Read one tensor, in its stored dtype."""
        weight = self.weights.read(name)
        return weight if self.adapter is None else self.adapter.merged(name, weight)


def _require_plain_lora(config: Mapping[str, Any], folder: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedCheckpointError(f"{folder / ADAPTER_CONFIG}: peft_type is {kind!r}; it must be 'LORA'")
    for name in _UNSUPPORTED:
        if config.get(name):
            raise UnsupportedCheckpointError(
                f"{folder / ADAPTER_CONFIG}: {name} is {config[name]!r}, which is not supported"
            )
    if config.get("bias", "none") != "none":
        raise UnsupportedCheckpointError(f"{folder / ADAPTER_CONFIG}: bias is {config['bias']!r}; it must be 'none'")


def _read_tensors(file: Path) -> dict[str, Tensor]:
    with open_safetensors(file) as tensors:
        return {name: tensors.get_tensor(name).clone() for name in tensors.keys()}  # noqa: SIM118, a handle is no mapping


def _read_rows(tensors: dict[str, Tensor], config: Mapping[str, Any], file: Path) -> dict[str, TokenRows]:
    """Take the rows of tokens out of the tensors. `peft` finds a module by the end of its name."""
    asked = config.get("trainable_token_indices") or {}
    rows = {}
    for name in [name for name in tensors if _ROWS.fullmatch(name)]:
        module = _ROWS.fullmatch(name)["module"]  # type: ignore[index]
        # A list stands for the embedding alone.
        by_module = asked if isinstance(asked, dict) else {module: asked}
        ids = next((by_module[key] for key in by_module if f".{module}".endswith(f".{key}")), None)
        if ids is None or tensors[name].dim() != 2 or len(ids) != len(tensors[name]):
            raise UnsupportedCheckpointError(f"{file}: {name} does not fit trainable_token_indices in its config")
        rows[f"{module}.weight"] = TokenRows(tuple(ids), tensors.pop(name))
    return rows


def _read_updates(tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> dict[str, LowRank]:
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise UnsupportedCheckpointError(f"{file}: holds {name}, which is not part of a plain LoRA adapter")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides:
        raise UnsupportedCheckpointError(f"{file}: holds no tensor, so it would change nothing; write it again")
    return {f"{module}.weight": _update(module, pair, config, file) for module, pair in sides.items()}


def _update(module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> LowRank:
    down, up = pair.get("A"), pair.get("B")
    if down is None or up is None or down.dim() != 2 or up.dim() != 2 or down.shape[0] != up.shape[1]:
        raise UnsupportedCheckpointError(f"{file}: {module} needs lora_A [r, in] and lora_B [out, r]")
    rank = down.shape[0]
    if config.get("r", rank) != rank and not config.get("rank_pattern"):
        raise UnsupportedCheckpointError(f"{file}: {module} has rank {rank}, and its config says r = {config['r']}")
    alpha = _alpha(module, config)
    return LowRank(down, up, alpha / (sqrt(rank) if config.get("use_rslora") else rank))


def _alpha(module: str, config: Mapping[str, Any]) -> float:
    """The module's alpha: `peft` matches the keys of `alpha_pattern` at the end of its name."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(alpha)
    return float(config["lora_alpha"])
