"""The process from which tests fork those of `llada-train`."""

import importlib

from llada_core.threads import wait_passively
from tests.forked import ForkServer
from training.run.low_bit import quieten


def import_training() -> None:
    """Import what a training imports, of adapters too, under the settings that `llada-train` makes before."""
    wait_passively()
    quieten()
    for module in ("training.cli", "training.run.run", "training.run.lora", "torch._dynamo", "matplotlib.figure"):
        importlib.import_module(module)


# A fork would not have numpy's thread.
LLADA_TRAIN = ForkServer("tests.training.forked:import_training", OPENBLAS_NUM_THREADS="1")
