"""The process from which tests fork those of `llada`."""

import importlib

from tests.forked import ForkServer

MODULES = (
    "clients.terminal.cli",
    "clients.terminal.chat",
    "clients.terminal.filling",
    "clients.terminal.saving",
    "clients.terminal.tables",
    "clients.terminal.viewer",
)


def import_client() -> None:
    """Import what the commands import, each of them a part."""
    for module in MODULES:
        importlib.import_module(module)


LLADA = ForkServer("tests.clients.terminal.forked:import_client")
