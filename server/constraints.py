"""Compiles the constraints of answers: in threads, once for all requests that ask for the same."""

import asyncio
import time
from collections import OrderedDict
from functools import partial

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.prepare import Vocabulary
from server.engine.metrics import AnswerMetrics
from server.http.api_error import bad_request
from server.schemas.structured import AnswerForm
from server.turns import Turns

# Each takes up to 4 MB, by the size of the vocabulary and of the pattern.
MOST_KEPT = 32
_AT_ONCE = 2


class Constraints:
    """The constraints of one model. Those used last are kept; one that is asked for twice at once is compiled once."""

    def __init__(self, vocabulary: Vocabulary, metrics: AnswerMetrics, *, max_waiting: int) -> None:
        """
        Args:
            max_waiting: the most requests that may wait for a thread; more are refused as if the queue were full.
        """
        self._vocabulary = vocabulary
        self._metrics = metrics
        # Translating takes milliseconds, and must not wait behind patterns that take seconds.
        self._translations = Turns(at_once=_AT_ONCE, max_waiting=max_waiting)
        self._compilations = Turns(at_once=_AT_ONCE, max_waiting=max_waiting)
        self._kept: OrderedDict[str, Constraint] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[Constraint]] = {}

    async def compiled(self, form: AnswerForm | None) -> Constraint | None:
        """The constraint that a body asks for; None if it asks for none.

        Raises:
            APIError: the form is refused, with its field, or too many requests wait.
        """
        if form is None:
            return None
        pattern = await self._translations.run(form.pattern)
        if pattern in self._kept:
            self._kept.move_to_end(pattern)
            return self._kept[pattern]
        if pattern not in self._under_way:
            self._under_way[pattern] = asyncio.create_task(self._compile(pattern))
            self._under_way[pattern].add_done_callback(partial(self._forget, pattern))
        try:
            # Others may wait for it too.
            return await asyncio.shield(self._under_way[pattern])
        except InvalidParameterError as error:
            raise bad_request(f"{form.field}{str(error).removeprefix('regex')}", form.field) from None

    async def _compile(self, pattern: str) -> Constraint:
        started = time.monotonic()
        constraint = await self._compilations.run(partial(compile_constraint, pattern, self._vocabulary))
        self._metrics.observe_compilation(time.monotonic() - started)
        self._kept[pattern] = constraint
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return constraint

    def _forget(self, pattern: str, task: asyncio.Task[Constraint]) -> None:
        del self._under_way[pattern]
        if not task.cancelled():
            task.exception()  # seen by whoever waits, if anybody still does
