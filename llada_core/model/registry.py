"""The architectures that can be loaded. The config's `architectures` decides, since `model_type` is not unique."""

from collections.abc import Mapping
from reprlib import repr as short
from typing import Any

from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.architectures.dream import DreamConfig
from llada_core.model.architectures.illada import ILLaDAConfig
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada2_moe import LLaDA2MoeConfig
from llada_core.model.architectures.llada_moe import LLaDAMoEConfig
from llada_core.model.architectures.sdar import SDARConfig
from llada_core.model.config import ModelConfig


def find_architecture(config: Mapping[str, Any]) -> type[ModelConfig]:
    """Return the config class of the architecture that a `config.json` names.

    Raises:
        UnsupportedCheckpointError: the architecture is not in the table.
    """
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0] in ARCHITECTURES:
        return ARCHITECTURES[named[0]]
    raise UnsupportedCheckpointError(
        f"config.json: architectures is {short(named)}; this project loads one of {list(ARCHITECTURES)} "
        "(docs/models.md names their checkpoints)"
    )


# The class named in `architectures` → the class that reads the config and describes the network.
ARCHITECTURES: Mapping[str, type[ModelConfig]] = {
    **{
        config.architecture: config
        for config in (DreamConfig, ILLaDAConfig, LLaDA2MoeConfig, LLaDAConfig, LLaDAMoEConfig, SDARConfig)
    },
    # The experts of a layer are stacked in its checkpoints.
    "FusedLLaDAMoEModelLM": LLaDAMoEConfig,
}
