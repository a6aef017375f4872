"""An exact draw of all masks of a block, given that the answer matches and fits.

The model's distributions are independent, so the probability of a filling is the product of its tokens' probabilities.
From the right, a sweep sums for each state the probability of all that can follow it; from the left, each mask draws
its arc in proportion to its class times what can follow, then a token of the class. It is the forward filtering and
backward sampling of hidden Markov models, mirrored.

Shape suffixes: V token ids, M of them, C token classes, S states, N masks of the block, from left to right.
"""

from collections.abc import Sequence

import numpy as np

from llada_core.sampling.constraints.candidates import Candidates
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.constraints.fillings import Fillings

# Below, a quotient by it would pass what float64 can hold; the draw is that of the most probable tokens long before.
_SMALLEST_TEMPERATURE = 1e-30

# Sums of float32 exponentials below it have lost bits.
_SMALLEST_SUM = 1e-30


def draw_filling(
    fillings: Fillings, candidates: Candidates, rows: Sequence[int], temperature: float, draws_N2: np.ndarray
) -> list[int]:
    """Draw a token for each mask of the block from ∏ softmax(logits / temperature), given that they are a filling.

    Tokens that top-k, top-p or `min_tokens` rule out are drawn only where there is no filling without them, and then as
    few as possible.

    Args:
        fillings: of the block; there is at least one.
        rows: the row of each mask.
        draws_N2: uniform numbers; those of a mask draw its class and its token.
    """
    temperature = max(temperature, _SMALLEST_TEMPERATURE)
    constraint = fillings.constraint
    weights = _class_weights(constraint, candidates, rows, temperature)
    classes = _draw_classes(fillings, weights, draws_N2[:, 0])
    return [
        _draw_token(constraint, candidates.logits(row), token_class, temperature, draw)
        for row, token_class, draw in zip(rows, classes, draws_N2[:, 1], strict=True)
    ]


def _class_weights(
    constraint: Constraint, candidates: Candidates, rows: Sequence[int], temperature: float
) -> list[np.ndarray]:
    """Return the logarithm of the summed weight of each class, float64 [C], for each mask."""
    pairs, largest_loss = [], 0.0
    for row in rows:
        all_V, allowed_V = candidates.logits(row)
        all_C = _sums(constraint, all_V, temperature)
        allowed_C = all_C if allowed_V is all_V else _sums(constraint, allowed_V, temperature)
        lowest = all_C[all_C > -np.inf].min(initial=0)
        # Only `min_tokens` leaves a class without a logit: that of the ends.
        pairs.append((np.maximum(all_C, lowest), allowed_C))
        largest_loss -= lowest
    # More than a filling can gain elsewhere by one token that is ruled out.
    penalty = 2 * largest_loss + 1000
    return [np.where(allowed_C > -np.inf, allowed_C, all_C - penalty) for all_C, allowed_C in pairs]


def _sums(constraint: Constraint, logits_V: np.ndarray, temperature: float) -> np.ndarray:
    """Return log Σ exp(logit / temperature) over the tokens of each class, [C], up to a constant of the row."""
    # Class 0, which no filling holds, has most tokens under many patterns.
    starts = constraint.id_starts[1:] - constraint.id_starts[1]
    logits_M = logits_V.take(constraint.ids_V[constraint.id_starts[1] :])
    logits_M -= max(logits_M.max(), np.finfo(np.float32).min)
    sums = np.add.reduceat(np.exp(logits_M / np.float32(temperature)), starts[:-1], dtype=np.float64)
    is_small = sums < _SMALLEST_SUM
    logarithms_C = np.append(-np.inf, np.log(np.where(is_small, 1, sums)))
    for index in np.flatnonzero(is_small):
        logarithms_C[index + 1] = _log_sum(logits_M[starts[index] : starts[index + 1]] / np.float64(temperature))
    return logarithms_C


def _log_sum(weights: np.ndarray) -> float:
    largest = weights.max()
    return float(largest if largest == -np.inf else largest + np.log(np.exp(weights - largest).sum()))


def _sums_ahead(fillings: Fillings, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return, for each boundary of the block, the logarithm of the weight of all that can follow a state there, [S]."""
    constraint = fillings.constraint
    ahead = [np.zeros(constraint.num_states)]
    waiting = list(weights)
    for place in reversed(range(fillings.length)):
        arcs = fillings.viable_arcs(place)
        sources, terms = constraint.sources_A[arcs], ahead[-1][constraint.targets_A[arcs]]
        if fillings.is_masked(place):
            terms = terms + waiting.pop()[constraint.classes_of(arcs)]
        largest_S = np.full(constraint.num_states, -np.inf)
        np.maximum.at(largest_S, sources, terms)
        sums_S = np.bincount(sources, np.exp(terms - largest_S[sources]), minlength=constraint.num_states)
        # States without an arc are in no filling; their value is never read.
        ahead.append(largest_S + np.log(np.maximum(sums_S, 1)))
    return ahead[::-1]


def _draw_classes(fillings: Fillings, weights: Sequence[np.ndarray], draws_N: np.ndarray) -> list[int]:
    """Draw the class of each mask."""
    constraint = fillings.constraint
    ahead = _sums_ahead(fillings, weights)
    waiting = iter(zip(weights, draws_N, strict=True))
    classes: list[int] = []
    state = None
    for place in range(fillings.length):
        arcs = fillings.viable_arcs(place, state)
        arc = arcs[0]
        if fillings.is_masked(place):
            weights_C, draw = next(waiting)
            arc_classes = constraint.classes_of(arcs)
            index = _draw(weights_C[arc_classes] + ahead[place + 1][constraint.targets_A[arcs]], draw)
            arc = arcs[index]
            classes.append(int(arc_classes[index]))
        state = int(constraint.targets_A[arc])
    return classes


def _draw_token(
    constraint: Constraint,
    logits: tuple[np.ndarray, np.ndarray],
    token_class: int,
    temperature: float,
    draw: float,
) -> int:
    """Draw a token of the class."""
    all_V, allowed_V = logits
    ids = constraint.ids(np.array([token_class]))
    logits_M = allowed_V[ids]
    if logits_M.max() == -np.inf:
        logits_M = np.maximum(all_V[ids], np.finfo(np.float32).min)
    return int(ids[_draw(logits_M / np.float64(temperature), draw)])


def _draw(weights: np.ndarray, draw: float) -> int:
    """Return an index, in proportion to the exponentials of the weights."""
    cumulative = np.exp(weights - weights.max()).cumsum()
    # The product may round up to the whole sum.
    return min(int(np.searchsorted(cumulative, draw * cumulative[-1], side="right")), len(weights) - 1)
