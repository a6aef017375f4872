"""Middleware that every request passes before a route sees it: errors, path prefix, HEAD, API key, size limit."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.access import QUIET_PATHS, STATIC
from server.http.api_error import (
    MAX_BODY_BYTES,
    MAX_BYTES_UNDER_WAY,
    APIError,
    body_too_large,
    too_many_connections,
    unauthorized,
)
from server.http.browser import BROWSER_HEADERS
from server.http.errors import to_api_error
from server.http.exchange import current_exchange

# The API page loads /openapi.json.
_PUBLIC_PATHS = ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json")
_PUBLIC_PREFIX = f"{STATIC}/"

_LINGERING_SECONDS = 5


class RequestBoundary:
    """Answers exceptions, and gives every response the headers for browsers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange, has_started = current_exchange(), False
        if _path_of(scope).startswith(_PUBLIC_PREFIX):
            exchange.route = STATIC
        # Whose turn it is where clients share the server: the key's, if there is one.
        scope["state"]["client"] = scope["client"][0] if scope.get("client") else ""

        async def send_with_headers(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                headers = MutableHeaders(scope=message)
                for name, value in BROWSER_HEADERS.items():
                    headers.setdefault(name, value)
                if (route := scope.get("route")) is not None:
                    exchange.route = route.path
            await send(message)

        # Probes are answered: a full server is well, and must not be restarted for it.
        if scope["state"].get("is_one_too_many") and _path_of(scope) not in QUIET_PATHS:
            await _respond(too_many_connections(), scope, receive, _closing_after(503, receive, send_with_headers))
            return
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            if has_started:
                raise
            await _respond(to_api_error(error, exchange.request_id), scope, receive, send_with_headers)


class RootPath:
    """Accepts requests below `root_path` whether or not the proxy in front has stripped it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # uvicorn puts the root path before the path it received, so one that was not stripped is there twice.
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{self._root_path * 2}/"):
            path = scope["path"].removeprefix(self._root_path)
            path = path if path != self._root_path else f"{path}/"
            scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        await self._app(scope, receive, send)


class Head:
    """Answers HEAD on every route that answers GET: the same status and headers, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        is_answered = asyncio.Event()

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                is_answered.set()

        async def receive_until_answered() -> Message:
            # A stream must not go on for a client that reads no body.
            await is_answered.wait()
            return {"type": "http.disconnect"}

        await self._app({**scope, "method": "GET"}, receive_until_answered, send_without_body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class ApiKey:
    """Answers 401 unless the request carries one of the API keys; page, API page, health and metrics stay open."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = {key.encode(): key_name(key) for key in keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name = self._name_of_key(scope)
            if name is None and not _is_public(scope):
                await _respond(unauthorized(), scope, receive, send)
                return
            if name is not None:
                scope["state"]["client"] = f"key {name}"
                current_exchange().key = name
        await self._app(scope, receive, send)

    def _name_of_key(self, scope: Scope) -> str | None:
        """The name of the key that the request carries, if it is one of those accepted."""
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        # Constant time: every key is compared, even after a match.
        sent = key.encode("latin-1")
        names = [name for accepted, name in self._keys.items() if hmac.compare_digest(sent, accepted)]
        return names[0] if scheme.lower() == "bearer" and names else None


class BodyLimit:
    """Answers 413 to a body over the limit, whether its length is declared or it arrives in endless chunks, and 429 if
    all bodies under way would have too many bytes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bytes_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _closing_after(413, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            await _respond(body_too_large(MAX_BODY_BYTES), scope, receive, send)
            return
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._bytes_under_way += size
            # FastAPI lets no other exception through while it reads a body.
            if received > MAX_BODY_BYTES:
                raise HTTPException(413)
            if size and self._bytes_under_way > MAX_BYTES_UNDER_WAY:
                raise HTTPException(429)
            return message

        try:
            await self._app(scope, counted_receive, send)
        finally:
            self._bytes_under_way -= received


def _closing_after(status: int, receive: Receive, send: Send) -> Send:
    """A `send` that closes the connection after an answer of this status, once the client has had time to read it.

    Many clients read nothing before they have sent everything, and a connection closed under them loses the answer.
    """
    is_refused = False

    async def send_and_close(message: Message) -> None:
        nonlocal is_refused
        if message["type"] == "http.response.start" and message["status"] == status:
            is_refused = True
            MutableHeaders(scope=message)["connection"] = "close"
        if not is_refused or message["type"] == "http.response.start" or message.get("more_body"):
            await send(message)
            return
        await send({**message, "more_body": True})
        # A client that leaves now has its answer.
        current_exchange().is_complete = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGERING_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return send_and_close


def _is_public(scope: Scope) -> bool:
    path = _path_of(scope)
    return path in _PUBLIC_PATHS or path.startswith(_PUBLIC_PREFIX)


def key_name(key: str) -> str:
    """The name of an API key in the log, from which nobody can tell the key: the start of its SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def _path_of(scope: Scope) -> str:
    return scope["path"].removeprefix(scope.get("root_path", ""))


async def _respond(error: APIError, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(error.body, error.status, headers=error.headers)(scope, receive, send)
