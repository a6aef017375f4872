"""The optional packages for 8 and 4 bits, `bitsandbytes` and `torchao`."""

import logging
from importlib import import_module
from typing import Any

from training.errors import TrainingError


def quieten() -> None:
    """Keep both from telling, while they are imported, of kernels that they miss; `peft` imports them if it can."""
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def import_for(option: str, module: str) -> Any:
    """Import a module that an option needs.

    Raises:
        TrainingError: it is not installed; says how to do that.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError:
        package = module.partition(".")[0]
        raise TrainingError(f"{option} needs {package}: pip install 'llada[low-bit]'") from None
