"""The outermost middleware: gives every request an id, and reports it once it is over, to log, metrics and traces."""

import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.engine.metrics import HTTPMetrics
from server.http.connection import new_request_id
from server.http.exchange import Exchange, begin_exchange
from server.http.tracing import Tracing
from server.logs import Fields

logger = logging.getLogger(__name__)

MAX_REQUEST_ID_LENGTH = 128

STATIC = "/static"
# What machines ask for all the time, and what comes along with a page.
QUIET_PATHS = frozenset({"/health", "/ready", "/ping", "/metrics"})


def is_quiet(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is one of those that would fill the log and the traces: it is logged at debug only."""
    prefix = scope.get("root_path", "")
    # It is there twice where the proxy has not stripped it (`middleware.RootPath`).
    path = scope.get("path", "").removeprefix(prefix).removeprefix(prefix)
    return path in QUIET_PATHS or path.startswith(f"{STATIC}/")


class AccessLog:
    """Gives every request an id and an `Exchange`; when it is over, writes one line about it, whatever happened."""

    def __init__(self, app: ASGIApp, metrics: HTTPMetrics, tracing: Tracing) -> None:
        self._app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, level = Headers(scope=scope), logging.DEBUG if is_quiet(scope) else logging.INFO
        exchange = Exchange(_client_request_id(headers) or new_request_id(), scope["method"])
        exchange.trace_id = self._tracing.trace_id(headers)
        begin_exchange(exchange)
        scope.setdefault("state", {})["request_id"] = exchange.request_id

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and not exchange.is_complete:
                exchange.is_abandoned = True
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.sent_status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = exchange.request_id
            elif not message.get("more_body", False):
                exchange.is_complete = True
            await send(message)

        try:
            with self._metrics.in_flight():
                await self._app(scope, watched_receive, watched_send)
        finally:
            self._report(exchange, level)

    def _report(self, exchange: Exchange, level: int) -> None:
        self._metrics.observe_response(exchange.route, exchange.status)
        self._tracing.add_spans(exchange)
        if logger.isEnabledFor(level):
            message = f"{exchange.method} {exchange.route} {exchange.status}"
            logger.log(level, Fields(message, exchange.fields()))


def _client_request_id(headers: Headers) -> str | None:
    """The client's own request id, if it is short and printable: it goes into logs and headers."""
    request_id = headers.get("x-request-id", "")
    is_usable = 0 < len(request_id) <= MAX_REQUEST_ID_LENGTH and request_id.isascii() and request_id.isprintable()
    return request_id if is_usable else None
