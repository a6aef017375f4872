"""A reward for answers that are nearly right, which a model that is seldom right still earns."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def close(prompt: Sequence[Mapping[str, str]], text: str, record: Mapping[str, Any]) -> float:
    """1 for the right answer, a tenth less for every unit by which the result is wrong, 0 for another exercise."""
    exercise, _, result = record["answer"].rstrip(".").partition(" = ")
    found = re.fullmatch(re.escape(exercise) + r" = (\d+)\.", text.strip())
    return max(0.0, 1 - abs(int(found[1]) - int(result)) / 10) if found else 0.0
