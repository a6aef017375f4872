"""The process from which tests fork those of `llada-train`."""

import importlib

from llada_core.threads import wait_passively
from tests.forked import ForkServer


def import_training() -> None:
    """Import what a training imports, under the setting that `llada-train` makes before."""
    wait_passively()
    for module in ("training.cli", "training.run.run", "torch._dynamo", "matplotlib.figure"):
        importlib.import_module(module)


# A fork would not have numpy's thread.
LLADA_TRAIN = ForkServer("tests.training.forked:import_training", OPENBLAS_NUM_THREADS="1")
