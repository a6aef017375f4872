"""Temperature scaling (arXiv:1706.04599): the one number that makes probabilities as certain as they are right."""

import math
from collections.abc import Callable, Sequence

from training.evaluation.decisions import ReadQuestion, nll

LOWEST, HIGHEST = 0.05, 20.0

_GRID = 32
# The golden section narrows two steps of the grid to a thousandth of the temperature.
_NARROWINGS = 12
_GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(questions: Sequence[ReadQuestion]) -> float:
    """Return the temperature from 0.05 to 20 with the least mean NLL of the right options, to three digits.

    Where every answer is right no temperature is low enough, and the lowest is returned.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    step = (high - low) / _GRID

    def loss(log_temperature: float) -> float:
        return sum(nll(question, math.exp(log_temperature)) for question in questions)

    # The grid first: averaged over orders, the loss need not have a single minimum.
    best = min((low + number * step for number in range(_GRID + 1)), key=loss)
    refined = _golden_section(loss, max(low, best - step), min(high, best + step))
    # At an end of the range, or where the loss is flat, the grid's point stays.
    return float(f"{math.exp(min(best, refined, key=loss)):.3g}")


def _golden_section(loss: Callable[[float], float], low: float, high: float) -> float:
    """Narrow an interval around its minimum, and return its middle."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_left, loss_right = loss(left), loss(right)
    for _ in range(_NARROWINGS):
        if loss_left < loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - _GOLDEN * (high - low)
            loss_left = loss(left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + _GOLDEN * (high - low)
            loss_right = loss(right)
    return (low + high) / 2
