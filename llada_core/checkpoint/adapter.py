"""Low-rank adapters (LoRA, arXiv:2106.09685) in `peft`'s format, merged into the weights while these are read.

A merged model is a plain model: it costs nothing per step, and can be quantised. `peft` itself is not needed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeGuard

import torch
from torch import Tensor

from llada_core.checkpoint.folder import ADAPTER_CONFIG
from llada_core.checkpoint.weights import CheckpointWeights, open_safetensors
from llada_core.errors import UnsupportedCheckpointError, shorten
from llada_core.files import read_json

_WEIGHTS_FILE = "adapter_model.safetensors"
_MOST_ALPHA = 1_000_000

# What a config may ask for beside plain LoRA; each would change the merged weights.
_UNSUPPORTED = ("use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "modules_to_save")

_ROWS = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.\w+)?")
# `peft` reads the keys of `alpha_pattern` as regular expressions; those that repeat or choose can take for ever.
_SIMPLE_PATTERN = re.compile(r"[\w.^$\\-]+")
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
        base_model = config.get("base_model_name_or_path")
        self.base_model = None if base_model is None else shorten(str(base_model))
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
                    f"{self._folder}: has rows of width {new.rows.shape[1]} for the tokens "
                    f"{short(list(new.token_ids))} of {shorten(name)}, and the model has it in shape "
                    f"{list(shapes.get(name, ()))}"
                )
        for name, update in self.updates.items():
            if shapes.get(name) != update.shape:
                has = f"has it in shape {list(shapes[name])}" if name in shapes else "has no such weight"
                raise UnsupportedCheckpointError(
                    f"{self._folder}: updates {shorten(name)} of shape {list(update.shape)}, and the model {has}; "
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
        raise UnsupportedCheckpointError(f"{folder / ADAPTER_CONFIG}: peft_type is {short(kind)}; it must be 'LORA'")
    for name in _UNSUPPORTED:
        if config.get(name):
            raise UnsupportedCheckpointError(
                f"{folder / ADAPTER_CONFIG}: {name} is {short(config[name])}, which is not supported"
            )
    if config.get("bias", "none") != "none":
        raise UnsupportedCheckpointError(
            f"{folder / ADAPTER_CONFIG}: bias is {short(config['bias'])}; it must be 'none'"
        )
    for name in ("alpha_pattern", "rank_pattern"):
        if not isinstance(config.get(name) or {}, dict):
            raise UnsupportedCheckpointError(
                f"{folder / ADAPTER_CONFIG}: {name} is {short(config[name])}; it must be an object"
            )
    for pattern in config.get("alpha_pattern") or {}:
        if not _is_simple(pattern):
            raise UnsupportedCheckpointError(
                f"{folder / ADAPTER_CONFIG}: alpha_pattern has the key {short(pattern)}; it must be the name of a "
                "module, or an expression without repetition and choice"
            )


def _is_simple(pattern: str) -> bool:
    try:
        return _SIMPLE_PATTERN.fullmatch(pattern) is not None and bool(re.compile(pattern))
    except re.error:
        return False


def _read_tensors(file: Path) -> dict[str, Tensor]:
    """Map the tensors of a file; they are in memory only once they are used."""
    with open_safetensors(file) as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, a handle is no mapping
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise UnsupportedCheckpointError(f"{file}: {shorten(name)} is of {tensor.dtype}; it must be of floats")
    return tensors


def _read_rows(tensors: dict[str, Tensor], config: Mapping[str, Any], file: Path) -> dict[str, TokenRows]:
    """Take the rows of tokens out of the tensors. `peft` finds a module by the end of its name."""
    asked = config.get("trainable_token_indices") or {}
    rows = {}
    for name in [name for name in tensors if _ROWS.fullmatch(name)]:
        module = _ROWS.fullmatch(name)["module"]  # type: ignore[index]
        # A list stands for the embedding alone.
        by_module = asked if isinstance(asked, dict) else {module: asked}
        ids = next((by_module[key] for key in by_module if f".{module}".endswith(f".{key}")), None)
        if not _are_ids(ids) or tensors[name].dim() != 2 or len(ids) != len(tensors[name]):
            raise UnsupportedCheckpointError(
                f"{file}: {shorten(name)} does not fit trainable_token_indices in its config"
            )
        rows[f"{module}.weight"] = TokenRows(tuple(ids), tensors.pop(name))
    return rows


def _are_ids(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and bool(value) and all(type(item) is int and item >= 0 for item in value)


def _read_updates(tensors: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> dict[str, LowRank]:
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise UnsupportedCheckpointError(
                f"{file}: holds {shorten(name)}, which is not part of a plain LoRA adapter"
            )
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    if not sides:
        raise UnsupportedCheckpointError(f"{file}: holds no tensor, so it would change nothing; write it again")
    return {f"{module}.weight": _update(module, pair, config, file) for module, pair in sides.items()}


def _update(module: str, pair: Mapping[str, Tensor], config: Mapping[str, Any], file: Path) -> LowRank:
    down, up = pair.get("A"), pair.get("B")
    rank = down.shape[0] if down is not None and down.dim() == 2 else 0
    if down is None or up is None or up.dim() != 2 or not rank or rank != up.shape[1]:
        raise UnsupportedCheckpointError(f"{file}: {shorten(module)} needs lora_A [r, in] and lora_B [out, r]")
    if config.get("r", rank) != rank and not config.get("rank_pattern"):
        raise UnsupportedCheckpointError(
            f"{file}: {shorten(module)} has rank {rank}, and its config says r = {short(config['r'])}"
        )
    alpha = _alpha(module, config)
    if type(alpha) not in (int, float) or not abs(alpha) <= _MOST_ALPHA:
        raise UnsupportedCheckpointError(
            f"{file.parent / ADAPTER_CONFIG}: lora_alpha of {shorten(module)} is {short(alpha)}; it must be a number "
            f"from {-_MOST_ALPHA:,} to {_MOST_ALPHA:,}"
        )
    return LowRank(down, up, alpha / (sqrt(rank) if config.get("use_rslora") else rank))


def _alpha(module: str, config: Mapping[str, Any]) -> Any:
    """The module's alpha: `peft` matches the keys of `alpha_pattern` at the end of its name."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return alpha
    return config.get("lora_alpha")
