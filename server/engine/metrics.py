"""Prometheus metrics; docs/metrics.md explains each. Every name of the server's own starts with `llada_`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from llada_core.sampling.events import DenoisingStep
from server.engine.times import Times
from server.heap import heap_meter

_LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SMALL_BUCKETS = tuple(2**power for power in range(7))
_TOKEN_BUCKETS = tuple(2**power for power in range(4, 16))
# Those of a finished text, and what else may end a generation. Each exists from the start, so that a rate does too.
FINISH_REASONS = ("stop", "length", "error", "timeout", "cancelled")

# When each counter began would double the page, and no query needs it.
disable_created_metrics()


class EngineMetrics:
    """What the model threads do."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, buckets: Sequence[float] = _LATENCY_BUCKETS) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self._running = Gauge("llada_requests_running", "Requests in the step loop now", registry=registry)
        self._waiting = Gauge("llada_requests_waiting", "Requests in the queue", registry=registry)
        self._cache_bytes = Gauge(
            "llada_kv_cache_bytes", "Memory set aside for keys and values of running requests", registry=registry
        )
        self._prefix_bytes = Gauge(
            "llada_prefix_cache_bytes", "Memory of finished blocks that requests share", registry=registry
        )
        self._prefix_queries = Counter(
            "llada_prefix_cache_queries", "Tokens of finished blocks that new requests asked for", registry=registry
        )
        self._prefix_hits = Counter(
            "llada_prefix_cache_hits", "Tokens of finished blocks that were not computed again", registry=registry
        )
        self._max_batch_tokens = Gauge("llada_max_batch_tokens", "Most tokens of one denoising step", registry=registry)
        self._steps = Counter("llada_denoising_steps", "Denoising steps summed over requests", registry=registry)
        self._failed_steps = Counter(
            "llada_failed_steps", "Denoising steps that failed, each with its request", registry=registry
        )
        self._commits = Counter("llada_committed_tokens", "Tokens committed to canvases", registry=registry)
        self._edits = Counter("llada_edited_tokens", "Written tokens replaced by others", registry=registry)
        self._likelihood_tokens = Counter(
            "llada_likelihood_model_tokens",
            "Tokens that likelihoods, decisions and readings sent through the model",
            registry=registry,
        )
        self._step_seconds = histogram("llada_step_seconds", "Duration of a batch's denoising step")
        self._batch_size = histogram("llada_step_batch_size", "Requests in a denoising step", _SMALL_BUCKETS)
        self._batch_tokens = histogram(
            "llada_step_batch_tokens", "Tokens that a denoising step sent through the model", _TOKEN_BUCKETS
        )
        self._step_commits = histogram(
            "llada_step_committed_tokens", "Tokens that a step committed to one canvas", (0, *_SMALL_BUCKETS)
        )
        self._queue_seconds = histogram("llada_queue_seconds", "From a request's submission to its admission")
        self._first_commit_seconds = histogram(
            "llada_first_commit_seconds", "From arrival to the step that committed the first token"
        )

    def observe_load(self, running: int, waiting: int, *, cache_bytes: int, max_batch_tokens: int) -> None:
        self._running.set(running)
        self._waiting.set(waiting)
        self._cache_bytes.set(cache_bytes)
        self._max_batch_tokens.set(max_batch_tokens)

    def observe_step(self, events: Sequence[DenoisingStep], *, tokens: int, seconds: float) -> None:
        self._step_seconds.observe(seconds)
        self._batch_size.observe(len(events))
        self._batch_tokens.observe(tokens)
        self._steps.inc(len(events))
        for event in events:
            num_commits = sum(change.op == "commit" for change in event.changes)
            self._step_commits.observe(num_commits)
            self._commits.inc(num_commits)
            self._edits.inc(len(event.changes) - num_commits)
            self._prefix_queries.inc(event.queried_tokens)
            self._prefix_hits.inc(event.reused_tokens)

    def measure_prefix_cache(self, num_bytes: Callable[[], int]) -> None:
        """Ask `num_bytes` for the memory of shared blocks whenever the metrics are read."""
        self._prefix_bytes.set_function(num_bytes)

    def observe_failed_step(self) -> None:
        self._failed_steps.inc()

    def observe_first_commit(self, times: Times) -> None:
        assert times.queue_seconds is not None and times.first_commit_seconds is not None
        self._queue_seconds.observe(times.queue_seconds)
        self._first_commit_seconds.observe(times.first_commit_seconds)

    def observe_likelihood(self, tokens: int) -> None:
        self._likelihood_tokens.inc(tokens)


class AnswerMetrics:
    """How generations end, and what they and the likelihoods amount to."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._finished = Counter(
            "llada_requests_finished", "Generations by finish reason", ["finish_reason"], registry=registry
        )
        for reason in FINISH_REASONS:
            self._finished.labels(reason)
        self._prompt_tokens = Counter(
            "llada_prompt_tokens", "Prompt tokens of generations that finished", registry=registry
        )
        self._completion_tokens = Counter(
            "llada_completion_tokens", "Text tokens of generations that finished", registry=registry
        )
        self._scored_tokens = Counter("llada_scored_tokens", "Tokens whose likelihood was estimated", registry=registry)
        self._decided_questions = Counter(
            "llada_decided_questions", "Questions that decisions answered", registry=registry
        )
        self._request_seconds = Histogram(
            "llada_request_seconds", "From arrival to the last step", buckets=_LATENCY_BUCKETS, registry=registry
        )
        self._compile_seconds = Histogram(
            "llada_constraint_compile_seconds",
            "From an answer's pattern to its constraint, waiting included",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )

    def observe_finished(
        self, finish_reason: str, *, prompt_tokens: int, completion_tokens: int, seconds: float
    ) -> None:
        self._finished.labels(finish_reason).inc()
        self._prompt_tokens.inc(prompt_tokens)
        self._completion_tokens.inc(completion_tokens)
        self._request_seconds.observe(seconds)

    def observe_unfinished(self, reason: str) -> None:
        """Count a generation that has ended without a text: error, timeout or cancelled."""
        self._finished.labels(reason).inc()

    def observe_compilation(self, seconds: float) -> None:
        self._compile_seconds.observe(seconds)

    def observe_scored(self, tokens: int) -> None:
        self._scored_tokens.inc(tokens)

    def observe_decided(self, questions: int) -> None:
        self._decided_questions.inc(questions)


class HTTPMetrics:
    """Requests and connections, whatever they ask for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._responses = Counter(
            "llada_responses", "Answers by route and status code", ["route", "status"], registry=registry
        )
        self._in_flight = Gauge("llada_http_requests_in_flight", "HTTP requests under way", registry=registry)
        self._connections = Gauge("llada_connections", "Open connections of clients, idle ones too", registry=registry)

    def in_flight(self) -> AbstractContextManager[object]:
        """Count a request as under way within the block."""
        return self._in_flight.track_inprogress()

    def observe_response(self, route: str, status: int) -> None:
        self._responses.labels(route, str(status)).inc()

    def count_connections(self, count: Callable[[], int]) -> None:
        """Ask `count` for the number of connections whenever the metrics are read."""
        self._connections.set_function(count)


class Metrics:
    """One server's metrics, in a registry of its own so that two servers in one process do not collide."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.engine = EngineMetrics(registry)
        self.answers = AnswerMetrics(registry)
        self.http = HTTPMetrics(registry)
        if (heap_bytes := heap_meter()) is not None:
            heap = Gauge("llada_heap_bytes", "Memory in use on the C heap, not what is free in it", registry=registry)
            heap.set_function(heap_bytes)
        self._ready = Gauge("llada_ready", "Whether requests are accepted: 1 if /ready is 200", registry=registry)
        self._registry = registry

    def describe(self, name: str, text: str, **labels: object) -> None:
        """Add facts that do not change, as the labels of a metric that is always 1."""
        Info(name, text, registry=self._registry).info({label: str(value) for label, value in labels.items()})

    def limit(self, name: str, text: str, value: float) -> None:
        """Add a limit under which the server runs."""
        Gauge(name, text, registry=self._registry).set(value)

    def render(self, *, is_ready: bool) -> bytes:
        """The metrics in Prometheus' text format."""
        self._ready.set(is_ready)
        return generate_latest(self._registry)
