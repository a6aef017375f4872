"""How many random cases a test tries: all of them under `make fuzz`, half of them in `make test`."""

import os

_IS_FUZZING = os.environ.get("LLADA_FUZZ") == "1"


def cases(number: int) -> int:
    """The number of examples to draw."""
    return number if _IS_FUZZING else number // 2
