"""What can be wrong with data or a run; `cli.main` prints these in one line and leaves with 1."""


class DataError(ValueError):
    """Training data that cannot be used; names the file, the line and the rule."""


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what to try."""


class ElsewhereError(TrainingError):
    """The main process stops too, and says why; nothing is printed for this one."""
