"""Errors that users can correct: each names the field, its value and the rule it breaks."""


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
