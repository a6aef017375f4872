"""Prometheus metrics; every name starts with `llada_`."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from llada_core.sampling.events import DenoisingStep

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """One server's metrics, in a registry of its own so that two servers in one process do not collide."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self.registry)

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float] = _LATENCY_BUCKETS) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=self.registry)

        self._running = gauge("llada_requests_running", "Requests in the step loop now")
        self._waiting = gauge("llada_requests_waiting", "Requests in the queue")
        self._cache_bytes = gauge("llada_kv_cache_bytes", "Memory set aside for keys and values of running requests")
        self._responses = counter("llada_responses", "Answers by route and status code", ["route", "status"])
        self._finished = counter("llada_requests_finished", "Generations by finish reason", ["finish_reason"])
        self._steps = counter("llada_denoising_steps", "Denoising steps summed over requests")
        self._commits = counter("llada_committed_tokens", "Tokens committed to canvases")
        self._prompt_tokens = counter("llada_prompt_tokens", "Prompt tokens of finished generations")
        self._completion_tokens = counter("llada_completion_tokens", "Text tokens of finished generations")
        self._step_seconds = histogram("llada_step_seconds", "Duration of a batch's denoising step")
        self._batch_size = histogram("llada_step_batch_size", "Requests in a denoising step", (1, 2, 4, 8, 16, 32, 64))
        self._request_seconds = histogram("llada_request_seconds", "From arrival to the last step")

    def observe_load(self, running: int, waiting: int, cache_bytes: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)
        self._cache_bytes.set(cache_bytes)

    def observe_step(self, events: Sequence[DenoisingStep], seconds: float) -> None:
        self._step_seconds.observe(seconds)
        self._batch_size.observe(len(events))
        self._steps.inc(len(events))
        self._commits.inc(sum(len(event.changes) for event in events))

    def observe_finished(
        self, finish_reason: str, *, prompt_tokens: int, completion_tokens: int, seconds: float
    ) -> None:
        self._finished.labels(finish_reason).inc()
        self._prompt_tokens.inc(prompt_tokens)
        self._completion_tokens.inc(completion_tokens)
        self._request_seconds.observe(seconds)

    def observe_response(self, route: str, status: int) -> None:
        self._responses.labels(route, str(status)).inc()

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)
