"""A reward for answers that are nearly right, which a model that is never right can still earn."""

from collections.abc import Mapping, Sequence
from typing import Any


def same_length(prompt: Sequence[Mapping[str, str]], text: str, record: Mapping[str, Any]) -> float:
    """1 if the text is as long as the right answer, as "38 - 29 = 6." is, but "38 - 29 = 69." is not."""
    return float(len(text.strip()) == len(record["answer"]))
