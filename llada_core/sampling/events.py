"""The events that leave the core: the changes of a denoising step, never a copy of the canvas."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reporting:
    """The extra information that a canvas reports with its steps.

    Attributes:
        include_predictions: the best guess at every masked position, in each step.
        num_alternatives: how many of the most probable tokens to report wherever one is committed.
    """

    include_predictions: bool = False
    num_alternatives: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A position of the response, counted from its first token, that a step changed.

    Attributes:
        op: `commit`: a mask became this token; `edit`: a written token did.
        confidence: the token's softmax probability when it was committed.
        alternatives: the most probable tokens there with their probabilities; see `Reporting.num_alternatives`.
    """

    op: str
    step: int
    position: int
    token_id: int
    confidence: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best guess at a position that is still masked."""

    position: int
    token_id: int
    confidence: float


@dataclass(frozen=True, slots=True)
class DenoisingStep:
    """One step of one canvas.

    Attributes:
        step, block: count from 0.
        masked: masks left in the whole response.
        final_length: positions from the left that no later step changes; the end token is not counted.
        text_length: how many of them belong to the text; under a stop string, those before it.
        finish_reason: `stop` or `length` with the last step, else None.
        cache_passes: the forward passes before the step that proposed nothing: under cache `exact`, they wrote the keys
            and values of the prompt's blocks or of a finished one.
        queried_tokens: the positions of finished blocks for which the prefix pool was asked before the step.
        reused_tokens: those whose keys and values it had.
        overhang: the changes right of the response, which its last block has under block-causal attention; they matter
            to forks only.
        predictions: guesses at the positions still masked; None unless `Reporting.include_predictions`.
    """

    step: int
    block: int
    changes: tuple[Change, ...]
    masked: int
    final_length: int
    text_length: int
    finish_reason: str | None
    predictions: tuple[Prediction, ...] | None = None
    overhang: tuple[Change, ...] = ()
    cache_passes: int = 0
    queried_tokens: int = 0
    reused_tokens: int = 0
