"""How answers end: counted in the metrics once for each choice, and noted for the access log once for each request."""

import time
from collections.abc import Sequence

from server.engine.metrics import AnswerMetrics
from server.engine.times import Times
from server.http.api_error import APIError
from server.http.exchange import Generated, current_exchange
from server.replies.generation import Generation
from server.replies.usage import Usage

CANCELLED = "cancelled"
# What ends all choices of an answer when it ends one.
_SHARED = ("error", "timeout")


def finish_reason_of(error: Exception) -> str:
    """The finish reason of a choice that an exception has ended."""
    return "timeout" if isinstance(error, APIError) and error.code == "timeout" else "error"


class Endings:
    """Everything that ends passes here. A generation counts once, however often its end is told."""

    def __init__(self, metrics: AnswerMetrics) -> None:
        self._metrics = metrics

    def finish(self, generation: Generation) -> None:
        """Count a generation whose text is finished; one that is not goes on."""
        reason = generation.text.finish_reason
        if reason is not None and generation.finish_reason is None:
            generation.finish_reason = reason
            times = generation.request.times
            self._count(reason, generation.usage(), times.total_seconds or times.seconds_so_far)

    def fail(self, generation: Generation, reason: str) -> None:
        """Count a generation that ends without a finished text: `error`, `timeout` or `cancelled`."""
        if generation.finish_reason is None:
            generation.finish_reason = reason
            self._metrics.observe_unfinished(reason)

    def fail_rest(self, generations: Sequence[Generation]) -> None:
        """Count those that have not ended: for the reason for which a sibling failed, else because nobody waits."""
        reasons = {generation.finish_reason for generation in generations}
        shared = next((reason for reason in _SHARED if reason in reasons), CANCELLED)
        for generation in generations:
            self.fail(generation, shared)

    def report(self, generations: Sequence[Generation], usage: Usage) -> None:
        """Note what came of the generations of the answer to the current request; a paused one counts as cancelled."""
        times = [generation.request.times for generation in generations]
        current_exchange().generated = Generated(
            tuple(generation.finish_reason or CANCELLED for generation in generations),
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.denoising_steps,
            times=min(times, key=_first_commit),
            ended=max(each.finished or time.monotonic() for each in times),
        )

    def report_choices(self, finish_reasons: Sequence[str], usage: Usage) -> None:
        """Note what came of the current request, to which no generation belongs."""
        current_exchange().generated = Generated(
            tuple(finish_reasons), usage.prompt_tokens, usage.completion_tokens, usage.denoising_steps
        )

    def _count(self, reason: str, usage: Usage, seconds: float) -> None:
        self._metrics.observe_finished(
            reason, prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, seconds=seconds
        )


def _first_commit(times: Times) -> float:
    return float("inf") if times.first_commit_seconds is None else times.first_commit_seconds
