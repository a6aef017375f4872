"""Errors with which the engine refuses or abandons a request."""


class QueueFullError(Exception):
    """The queue has no room for more requests.

    Attributes:
        retry_seconds: after which there is likely to be some.
    """

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(f"the queue is full; there may be room in {retry_seconds} s")
        self.retry_seconds = retry_seconds


class CacheTooLargeError(Exception):
    """One request's caches would need more memory than is set aside for all.

    Attributes:
        needed, available: bytes.
        field: the field of the request that decides on its caches; None if there is none.
    """

    def __init__(self, needed: int, available: int, field: str | None = None) -> None:
        super().__init__(f"caches need {needed} bytes; all requests together have {available}")
        self.needed = needed
        self.available = available
        self.field = field


class EngineBrokenError(Exception):
    """A model thread has ended or hangs: no request can be served by this process any more."""


class EngineStoppedError(Exception):
    """The server is shutting down; the request cannot be finished."""
