"""What leaves the core: the change that one denoising step made, never a copy of the canvas."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One position of the response, counted from its first token, that a step changed.

    Attributes:
        op: `commit`: a mask became this token.
        confidence: the token's softmax probability when it was committed.
        alternatives: the most probable tokens there with their probabilities, as many as the canvas was asked for.
    """

    op: str
    step: int
    position: int
    token_id: int
    confidence: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model would write at a position that is still masked."""

    position: int
    token_id: int
    confidence: float


@dataclass(frozen=True, slots=True)
class DenoisingStep:
    """One step of one canvas.

    Attributes:
        step, block: count from 0.
        masked: masks left in the whole response.
        final_length: positions from the left that no later step changes, the end token left out.
        text_length: how many of them belong to the text; with a stop string those before it.
        finish_reason: `stop` or `length` with the last step, else None.
        predictions: guesses for what is still masked, where the canvas was asked for them.
    """

    step: int
    block: int
    changes: tuple[Change, ...]
    masked: int
    final_length: int
    text_length: int
    finish_reason: str | None
    predictions: tuple[Prediction, ...] | None = None
