"""Errors that users can correct: each names the field, its value and the rule it breaks."""

_LONGEST_TEXT = 200


class InvalidParameterError(ValueError):
    """A request or a call asks for something the rules do not allow.

    Attributes:
        field: the parameter's name as the user wrote it; None when no single parameter is at fault.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnsupportedCheckpointError(ValueError):
    """A checkpoint that this code refuses to load, because it would compute the wrong function."""


class NonFiniteLogitsError(ArithmeticError):
    """The network returned NaN or infinity instead of logits: broken weights, or values beyond the dtype's range."""


def shorten(text: str) -> str:
    """Return a stranger's text as it can stand in an error: on one line, without control characters, not long."""
    start = text[:_LONGEST_TEXT]
    line = start if start.isprintable() else repr(start)[1:-1]
    return line if start == text else f"{line}…"
