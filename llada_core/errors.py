"""Errors that are the user's to mend: each names the field, its value and the rule it breaks."""


class InvalidParameterError(ValueError):
    """A request or a call asks for something the rules do not allow.

    Attributes:
        field: the parameter's name as the user wrote it; None when no single one is at fault.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnsupportedCheckpointError(ValueError):
    """A checkpoint that this code would load wrongly, and therefore does not load."""


class NonFiniteLogitsError(ArithmeticError):
    """The network returned NaN or infinity where a probability was due: broken weights, or a dtype out of range."""
