"""Adapters that a run goes on training: what they decide about it."""

import re
from pathlib import Path

import torch

from llada_core.checkpoint.adapter import Adapter
from llada_core.model.config import ModelConfig
from llada_core.model.description import Description
from llada_core.model.network import Network
from training.errors import TrainingError


def read_adapter(folder: Path, config: ModelConfig) -> tuple[dict[str, object], tuple[int, ...]]:
    """The options of the run that made a folder of adapters, whichever trainer it was, and the tokens it trained.

    Raises:
        FileNotFoundError, UnsupportedCheckpointError: no plain LoRA adapter, or one of weights of other shapes.
        TrainingError: it adapts other layers than every block's, or has more than one rank or scale.
    """
    adapter = Adapter(folder)
    updates = adapter.updates
    ranks = {update.down.shape[0] for update in updates.values()}
    scales = {update.scale for update in updates.values()}
    if len(ranks) > 1 or len(scales) > 1:
        raise TrainingError(f"--adapter {folder}: its layers have ranks {sorted(ranks)} and scales {sorted(scales)}")
    (rank,), (scale,) = ranks, scales
    alpha = scale * rank
    if alpha != int(alpha):
        raise TrainingError(f"--adapter {folder}: is scaled by {scale:g}, which is no whole alpha / {rank}")
    description = config.describe()
    names = {name.removesuffix(".weight").rpartition(".")[2] for name in updates}
    targets = [name for name in description.adaptable() if name in names]
    pattern = re.compile(description.adapter_pattern(targets) + r"\.weight")
    whole = {name for name in config.tensor_shapes() if targets and pattern.fullmatch(name)}
    if set(updates) != whole:
        example = min(set(updates) ^ whole)
        raise TrainingError(
            f"--adapter {folder}: must adapt the same layers in each of the {description.num_layers} blocks, out of "
            f"{', '.join(description.adaptable())}; it differs in {example}"
        )
    with torch.device("meta"):
        adapter.check({name: tuple(weight.shape) for name, weight in Network(config).state_dict().items()})
    return {"lora_r": rank, "lora_alpha": int(alpha), "lora_target_modules": targets}, _token_ids(
        adapter, folder, description
    )


def _token_ids(adapter: Adapter, folder: Path, description: Description) -> tuple[int, ...]:
    if not adapter.rows:
        return ()
    matrices = {description.names.tensor(role) for role in ("embedding", description.head_role)}
    ids = {rows.token_ids for rows in adapter.rows.values()}
    if set(adapter.rows) != matrices or len(ids) > 1:
        raise TrainingError(
            f"--adapter {folder}: has rows of tokens in {sorted(adapter.rows)}; it must have those of the same tokens "
            f"in {sorted(matrices)}"
        )
    return next(iter(ids))
