"""The architectures that can be loaded. The config's `architectures` decides, since `model_type` is not unique.

An architecture is a folder under `architectures/` and an entry in the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.architectures.llada import names as llada_names
from llada_core.model.architectures.llada.config import LLaDAConfig

if TYPE_CHECKING:
    from llada_core.model.architectures.llada.network import LLaDAModelLM


@dataclass(frozen=True, slots=True)
class Architecture:
    """The parts of an architecture that loading and saving need.

    Attributes:
        config_class: reads and checks a `config.json`.
        network_class: returns the trainable network's class; a function, since importing it takes two seconds.
        tensor_name: role and, for a block's tensor, depth → the published tensor name.
    """

    config_class: type[LLaDAConfig]
    network_class: "Callable[[], type[LLaDAModelLM]]"
    tensor_name: Callable[[str, int | None], str]


def find_architecture(config: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a `config.json` names.

    Raises:
        UnsupportedCheckpointError: the architecture is not in the table.
    """
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0] in ARCHITECTURES:
        return ARCHITECTURES[named[0]]
    raise UnsupportedCheckpointError(
        f"config.json: architectures is {short(named)}; this project loads {list(ARCHITECTURES)} "
        "(LLaDA-8B-Base, LLaDA-8B-Instruct, LLaDA-1.5 and checkpoints of the same architecture)"
    )


def _llada_network() -> "type[LLaDAModelLM]":
    from llada_core.model.architectures.llada.network import LLaDAModelLM

    return LLaDAModelLM


# The class named in `architectures` → the architecture.
ARCHITECTURES: Mapping[str, Architecture] = {
    "LLaDAModelLM": Architecture(LLaDAConfig, _llada_network, llada_names.tensor_name),
}
