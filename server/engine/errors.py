"""What the engine can refuse or give up."""


class QueueFullError(Exception):
    """More requests wait than the queue may hold."""


class CacheTooLargeError(Exception):
    """One request's caches would take more memory than there is for all.

    Attributes:
        needed, available: bytes.
    """

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(f"caches of {needed} bytes; there are {available} for all requests")
        self.needed = needed
        self.available = available


class EngineStoppedError(Exception):
    """The server is shutting down; the request cannot be finished."""
