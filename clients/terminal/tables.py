"""Tables of what a server says."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table


def table_of_models(served: Sequence[Mapping[str, Any]]) -> Table:
    """The models that a server serves."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")
    for name in ("context", "vocabulary", "mask id"):
        table.add_column(name, justify="right")
    for model in served:
        table.add_row(model["id"], *(str(model[name]) for name in ("max_model_len", "vocab_size", "mask_token_id")))
    return table
