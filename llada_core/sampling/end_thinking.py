"""The push towards the end of thinking: a boost to the tokens that close it, the stronger the later it is (iLLaDA)."""

from typing import NamedTuple

import numpy as np

from llada_core.sampling.params import EndThinking


class Boost(NamedTuple):
    """A number added to the logit of a token at one position of the response."""

    position: int
    token_id: int
    value: float


def next_boost(end: EndThinking, response_L: np.ndarray, position: int) -> Boost | None:
    """Return the boost of the next token that closes the thinking; None if it is closed already.

    The next token is the one after the longest beginning of the closing sequence that ends right before `position`.

    Args:
        response_L: the ids of the response as they stand.
        position: the first mask of the active blocks.
    """
    closing = np.array(end.token_ids)
    if len(response_L) >= len(closing):
        windows = np.lib.stride_tricks.sliding_window_view(response_L, len(closing))
        if (windows == closing).all(axis=1).any():
            return None
    longest = range(min(len(closing) - 1, position), 0, -1)
    written = next((size for size in longest if (response_L[position - size : position] == closing[:size]).all()), 0)
    share = (position + 1) / len(response_L)
    return Boost(position, end.token_ids[written], end.boost * share**end.power)
