"""How much a test tries: everything under `make fuzz`, a part of it in `make test`, which has ten minutes."""

import os

IS_FUZZING = os.environ.get("LLADA_FUZZ") == "1"


def cases(number: int) -> int:
    """The number of random examples to draw."""
    return number if IS_FUZZING else number // 3
