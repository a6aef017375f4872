"""The whole policy of the engine: which requests and other computations run next.

Pure bookkeeping: no thread, no torch, no asyncio; the engine holds a lock around it.
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from llada_core.diffusion.guidance import num_passes
from llada_core.sampling.canvas import Canvas
from server.engine.errors import CacheTooLargeError, QueueFullError
from server.engine.mailbox import Mailbox
from server.engine.times import Times
from server.engine.waiting import Waiting
from server.engine.work import Work

# How many requests' ends the throughput is taken from.
_REMEMBERED_ENDS = 64
_MAX_RETRY_SECONDS = 60


@dataclass(eq=False, slots=True)
class Request:
    """A canvas in progress and the mailbox for its steps.

    Attributes:
        client: whoever shares a fair share of the model with its other requests.
        cache_bytes: memory that its keys and values take while it runs.
        last_scheduled: the round of its last step or, before its first step, the round before its admission; the least
            recent comes first.
        is_stepping: a model thread has its canvas; no other thread may touch it.
        is_complete: its reader has received the last step, or there is none (constraints fix the whole response).
    """

    canvas: Canvas
    mailbox: Mailbox
    client: str = ""
    cache_bytes: int = 0
    times: Times = field(default_factory=Times)
    last_scheduled: int = -1
    is_stepping: bool = False
    is_complete: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_complete = self.canvas.finish_reason is not None

    @property
    def num_tokens(self) -> int:
        """The most tokens that its next step sends through the model; a prefix pool may have some of them."""
        restored = sum(len(restoration.window) for restoration in self.canvas.restorations())
        return (len(self.canvas.window) + restored) * num_passes(self.canvas.params.cfg_scale)


@dataclass(frozen=True, slots=True)
class Turn:
    """The next computation of a model thread: a step of `requests`, a part of `work`, or both."""

    requests: list[Request]
    work: Work[Any] | None


class Scheduler:
    """Clients have equal shares of the places in the batch, as far as they ask for them, and of its steps. The requests
    of one are served in the order in which they came, as far as `max_batch_size` and the memory for caches allow.

    Admitted requests take turns when a step cannot hold them all, and several model threads share them evenly. Each
    other computation gets as much of the model as a request of its client does.

    Attributes:
        max_batch_tokens: the most tokens of a step; a single request may have more.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_batch_tokens: int,
        max_queue: int,
        kv_cache_memory: int = 0,
        model_threads: int = 1,
    ) -> None:
        """
        Args:
            kv_cache_memory: bytes that the caches of all admitted requests may take, with those of other computations.
        """
        self.max_batch_tokens = max_batch_tokens
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._kv_cache_memory = kv_cache_memory
        self._model_threads = model_threads
        self._waiting: Waiting[Request] = Waiting()
        # In the order of admission.
        self._running: list[Request] = []
        self._round = 0
        # The round in which each client with running requests was served last.
        self._last_served: dict[str, int] = {}
        self._works: set[Work[Any]] = set()
        # The computations of which no thread is running a part.
        self._ready_works: Waiting[Work[Any]] = Waiting()
        # Those of which a thread is running a part, even if they are forgotten meanwhile.
        self._computed_works: set[Work[Any]] = set()
        # The one for whose caches memory is kept free until its turn, because there was not enough.
        self._promised_work: Work[Any] | None = None
        self._ends: deque[float] = deque(maxlen=_REMEMBERED_ENDS)
        # Tokens that other computations may still send through the model before it is the requests' turn.
        self._work_allowance = 0.0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Admitted requests and other computations."""
        return len(self._running) + len(self._works)

    @property
    def cache_bytes(self) -> int:
        """Memory set aside for the caches of the admitted requests, and of the computations that have their turn."""
        of_requests = sum(request.cache_bytes for request in self._running)
        return of_requests + sum(work.cache_bytes for work in self._computed_works)

    def add(self, requests: Sequence[Request]) -> None:
        """Queue all of `requests` or, if they do not fit, none.

        Raises:
            QueueFullError: the requests beyond the free places would overfill the queue.
            CacheTooLargeError: the caches of one request need more than the memory set aside for all.
        """
        largest = max((request.cache_bytes for request in requests), default=0)
        if largest > self._kv_cache_memory:
            raise CacheTooLargeError(largest, self._kv_cache_memory, "cache")
        assert not any(request in self._running or request in self._waiting for request in requests)
        if requests:
            self.require_room(requests[0].client, len(requests))
        self._waiting.add(requests)

    def add_work(self, work: Work[Any]) -> None:
        """Let a computation take turns with the requests.

        Raises:
            QueueFullError: as many computations are under way as there may be requests, running and waiting.
            CacheTooLargeError: its caches need more than the memory set aside for all.
        """
        if work.cache_bytes > self._kv_cache_memory:
            raise CacheTooLargeError(work.cache_bytes, self._kv_cache_memory)
        own = sum(other.client == work.client for other in self._works)
        self._require_place(work.client, own + 1, len(self._works) + 1)
        self._works.add(work)
        self._ready_works.add([work])

    def require_room(self, client: str, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: `num_requests` more, beyond the free places, would overfill the queue. A client with no more
                than a fair share of it is let in all the same, until there are twice as many as there may be.
        """
        self._require_place(client, self._waiting.number_of(client) + num_requests, num_requests)

    def _require_place(self, client: str, own: int, num_more: int) -> None:
        """Refuse `num_more` things, with which the client has `own`, if they are too many."""
        free_places = self._max_batch_size - len(self._running)
        fair_share = max(1, self._max_queue // len({*self._waiting.clients, client}))
        limit = 2 * self._max_queue if own <= fair_share else self._max_queue
        if len(self._waiting) + num_more > limit + free_places:
            raise QueueFullError(self._retry_seconds())

    def is_running(self, request: Request) -> bool:
        """Admitted, and neither finished nor cancelled."""
        return request in self._running

    def remove(self, request: Request) -> None:
        """Forget a request, finished or cancelled, wherever it is."""
        if request in self._running:
            self._running.remove(request)
            if self._waiting:
                self._ends.append(time.monotonic())
            else:
                # Where nobody waits, ends tell how much is asked for, not how much can be done.
                self._ends.clear()
        else:
            self._waiting.remove(request)
        self._free_caches(request)

    def clear(self) -> tuple[list[Request], list[Work[Any]]]:
        """Forget all requests and computations, and return them."""
        requests, works = [*self._running, *self._waiting], list(self._works)
        for request in requests:
            self.remove(request)
        self._works.clear()
        self._ready_works.clear()
        return requests, works

    def schedule(self) -> Turn | None:
        """Choose what a free thread computes next; None if there is nothing.

        The thread gives it back by `release` and `release_work`.
        """
        self._admit()
        requests = self._next_requests()
        work = self._next_work(requests)
        return Turn(requests, work) if requests or work else None

    def release(self, requests: Sequence[Request]) -> None:
        """Take back requests whose step is over."""
        for request in requests:
            request.is_stepping = False
            self._free_caches(request)

    def release_work(self, work: Work[Any], tokens: int | None) -> None:
        """Take back a computation whose part sent `tokens` through the model; None if the computation is over."""
        self._computed_works.discard(work)
        if tokens is None:
            self._works.discard(work)
        elif work in self._works:
            self._work_allowance -= tokens
            self._ready_works.add([work])

    def _admit(self) -> None:
        """Give every free place, and those that some clients have beyond their share, to whoever has the fewest."""
        places = Counter(request.client for request in self._running)
        cache_bytes = self.cache_bytes + self._promised_bytes()
        passed_over: set[str] = set()
        while clients := [client for client in self._waiting.clients if client not in passed_over]:
            client = min(clients, key=lambda client: places[client])
            request = self._waiting.first_of(client)
            # Once one waits for memory no other may take it, but those that need none may go on.
            if request.cache_bytes and (passed_over or cache_bytes + request.cache_bytes > self._kv_cache_memory):
                passed_over.add(client)
                continue
            # A resubmitted request may have ended with the step during which it was cancelled.
            if request.canvas.finish_reason is None and len(self._running) >= self._max_batch_size:
                displaced = self._displaceable(places, client)
                if displaced is None:
                    break
                self._displace(displaced)
                places[displaced.client] -= 1
                cache_bytes -= displaced.cache_bytes
            self._waiting.take(client)
            if request.canvas.finish_reason is None:
                self._begin(request)
                places[client] += 1
                cache_bytes += request.cache_bytes

    def _displaceable(self, places: Counter[str], client: str) -> Request | None:
        """The newest request of the client with the most places, if these are two more than `client` has."""
        richest = max(places.values(), default=0)
        if richest < places[client] + 2:
            return None
        candidates = (request for request in reversed(self._running) if places[request.client] == richest)
        return next((request for request in candidates if not request.is_stepping), None)

    def _displace(self, request: Request) -> None:
        """Let a running request wait again; it goes on later where it stood."""
        self._running.remove(request)
        self._free_caches(request)
        self._waiting.put_back(request)

    def _begin(self, request: Request) -> None:
        request.times.admit()
        # Count as stepped in the last round, so that newcomers cannot starve those that wait for their turn.
        request.last_scheduled = self._round - 1
        self._last_served.setdefault(request.client, self._round - 1)
        self._running.append(request)

    def _next_requests(self) -> list[Request]:
        """The requests of the next step; empty when none is free.

        Of the client that has waited longest, the request that has waited longest is always among them. The first of
        every other client join in the same order, then the second of each, and so on, as far as their tokens fit; one
        that does not fit is skipped, not waited for, and comes first in a later round. No thread takes more than its
        share, so that none is idle while another has several requests.
        """
        share = ceil(len(self._running) / self._model_threads)
        requests: list[Request] = []
        tokens_left = self.max_batch_tokens
        for rank, request in self._in_turn():
            if not requests or (request.num_tokens <= tokens_left and len(requests) < share):
                requests.append(request)
                tokens_left -= request.num_tokens
                request.last_scheduled = self._round
                request.is_stepping = True
                if rank == 0:
                    self._last_served[request.client] = self._round
        self._round += 1
        return requests

    def _in_turn(self) -> list[tuple[int, Request]]:
        """The free requests in the order in which they may join a step, each with its rank among its client's."""
        clients = {request.client for request in self._running}
        self._last_served = {client: self._last_served[client] for client in clients}
        ranks: Counter[str] = Counter()
        ranked = []
        for request in sorted(self._running, key=lambda request: request.last_scheduled):
            if not request.is_stepping:
                ranked.append((ranks[request.client], request))
                ranks[request.client] += 1
        return sorted(ranked, key=lambda entry: (entry[0], self._last_served[entry[1].client]))

    def _next_work(self, requests: Sequence[Request]) -> Work[Any] | None:
        """The computation whose turn it is beside a step of `requests`."""
        if not requests:
            self._work_allowance = 0.0
        elif self._works:
            self._work_allowance += self._work_share() * sum(request.num_tokens for request in requests)
        if self._work_allowance < 0:
            return None
        clients = self._ready_works.clients
        served = (client for client in clients if not self._lacks_memory(self._ready_works.first_of(client)))
        if (client := next(served, None)) is None:
            return None
        work = self._ready_works.take(client)
        self._computed_works.add(work)
        if work is self._promised_work:
            self._promised_work = None
        return work

    def _promised_bytes(self) -> int:
        """The memory that no request may take, so that computations come to their turn too."""
        if self._promised_work is None or self._promised_work not in self._ready_works:
            self._promised_work = next((work for work in self._ready_works if self._lacks_memory(work)), None)
        return 0 if self._promised_work is None else self._promised_work.cache_bytes

    def _lacks_memory(self, work: Work[Any]) -> bool:
        """Whether there is no room for the caches of a computation's next part, if there is to be one."""
        return work.is_wanted and bool(work.cache_bytes) and self.cache_bytes + work.cache_bytes > self._kv_cache_memory

    def _work_share(self) -> float:
        """The tokens of other computations for each token of the running requests, where every client has an equal
        share, and spreads it evenly over all that it asks for.
        """
        requests, works = (Counter(item.client for item in items) for items in (self._running, self._works))
        both = requests + works
        of_requests, of_works = (sum(few[client] / both[client] for client in few) for few in (requests, works))
        return of_works / of_requests

    def _retry_seconds(self) -> int:
        """How long the requests that wait now will wait, at the present throughput; at most a minute."""
        if len(self._ends) < 2:
            return 1
        each = (time.monotonic() - self._ends[0]) / len(self._ends)
        return min(_MAX_RETRY_SECONDS, max(1, ceil(each * len(self._waiting))))

    def _free_caches(self, request: Request) -> None:
        """Free the keys and values of a request that has left, as soon as no thread uses them."""
        if request not in self._running and not request.is_stepping:
            request.canvas.caches = None
