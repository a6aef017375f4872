"""Names the options of training that reduce memory."""

from collections.abc import Iterator
from contextlib import contextmanager

from llada_core.memory import is_out_of_memory
from training.errors import TrainingError


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turn "out of memory" into a `TrainingError` that names the options that reduce memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "out of memory: lower --micro-batch-size (the result stays the same) or --max-length, or add "
            "--activation-checkpointing, --lora-r, or more processes with --strategy fsdp; --dry-run estimates each "
            f"({str(error).partition(chr(10))[0] or 'the host has no more'})"
        ) from None
