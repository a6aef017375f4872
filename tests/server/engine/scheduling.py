"""What the tests of the scheduler share."""

from dataclasses import dataclass

from server.engine.scheduler import Request, Scheduler


@dataclass(eq=False)
class StandIn:
    """A computation, of which the scheduler reads only these."""

    client: str = ""
    cache_bytes: int = 0
    is_wanted: bool = True


def step_of(scheduler: Scheduler) -> list[Request]:
    """The requests of a step that has ended."""
    turn = scheduler.schedule()
    if turn is None:
        return []
    scheduler.release(turn.requests)
    return turn.requests


def scheduler_with(**limits: int) -> Scheduler:
    return Scheduler(**{"max_batch_size": 8, "max_batch_tokens": 100, "max_queue": 4, **limits})


def cached(request: Request, size: int) -> Request:
    request.cache_bytes = size
    request.canvas.caches = ("keys and values",)
    return request
