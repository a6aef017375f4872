"""Errors that the user can fix; `cli.main` prints them on one line and exits with status 1."""


class DataError(ValueError):
    """Data that cannot be used; the message names the file, the line and the rule."""


class TrainingError(RuntimeError):
    """Training cannot start or continue; the message says why and what to try."""


class ElsewhereError(TrainingError):
    """Raised on other processes when the main one stops; the main one says why, the others print nothing."""
