"""A request and its answer, as the access log, the metrics and the traces tell of them.

`AccessLog` makes one for each request and reports it at the end. In between, whoever learns something notes it: the
boundary the route, the key check the key, the service the answer's id, `Running` the generation.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from server.engine.times import Times

_CLIENT_GONE = 499


@dataclass(frozen=True, slots=True)
class Generated:
    """What came of the generations of an answer, or of the likelihoods it asked for.

    Attributes:
        finish_reasons: one for each choice.
        times: those of the choice that committed first; None for likelihoods, which do not queue.
        ended: `time.monotonic()` when the last choice ended.
    """

    finish_reasons: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    denoising_steps: int
    times: Times | None = None
    ended: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        route: the path of the route that it matched.
        key: the name of its API key.
        trace_id: the id of the trace that it belongs to, of 32 hexadecimal digits.
        answer_id: the id that its answer has in the API.
        asked: the fields of its body that say who asked.
        arrived: `time.monotonic()` of its arrival.
        sent_status: the status code of the answer; None until it begins.
        is_complete: the answer was sent to its end.
        is_abandoned: the client left before that.
    """

    request_id: str
    method: str
    route: str = "unmatched"
    key: str | None = None
    trace_id: str | None = None
    answer_id: str | None = None
    asked: dict[str, str] = field(default_factory=dict)
    generated: Generated | None = None
    arrived: float = field(default_factory=time.monotonic)
    sent_status: int | None = None
    is_complete: bool = False
    is_abandoned: bool = False

    @property
    def status(self) -> int:
        """The status code: 499, as nginx has it, if the client has left; 500 if no answer was begun."""
        return _CLIENT_GONE if self.is_abandoned else self.sent_status or 500

    def fields(self) -> dict[str, Any]:
        """The facts for the log, without those that this request does not have. Nothing of the prompt is among them."""
        facts: dict[str, Any] = {
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "key": self.key,
            "answer_id": self.answer_id,
            **self.asked,
        }
        if (generated := self.generated) is not None:
            facts |= {
                "finish_reason": ",".join(sorted(set(generated.finish_reasons))) or None,
                "prompt_tokens": generated.prompt_tokens,
                "completion_tokens": generated.completion_tokens,
                "steps": generated.denoising_steps,
            }
            if (times := generated.times) is not None:
                facts["queue_ms"] = milliseconds(times.queue_seconds)
                facts["first_commit_ms"] = milliseconds(times.first_commit_seconds)
        facts["total_ms"] = milliseconds(time.monotonic() - self.arrived)
        return {name: value for name, value in facts.items() if value is not None}


def milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


_current: ContextVar[Exchange] = ContextVar("exchange")


def current_exchange() -> Exchange:
    """The exchange of the request that the running task answers."""
    return _current.get()


def begin_exchange(exchange: Exchange) -> None:
    """Make `exchange` the current one of the running task, and of those that it starts."""
    _current.set(exchange)
