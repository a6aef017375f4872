"""Bounds on the number of values in a body, checked before it is parsed.

Parsing holds up everything else in the process. 4 MB of text take a hundredth of a second; of keys or short numbers a
quarter of a second, and checking them one by one up to half a second more.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from server.http.api_error import bad_request

# 128 prompts of 4,096 token ids.
MAX_VALUES = 2**19
# 16,000 messages of two parts.
MAX_KEYS = 2**16


def require_few_values(body: bytes) -> None:
    """Refuse JSON with more values or keys than any request needs.

    Raises:
        APIError: names the number and the limit.
    """
    if body.count(b",") < MAX_VALUES and body.count(b":") <= MAX_KEYS:
        return
    # Texts may hold any number of commas: leave out escaped characters, then every second piece between quotes.
    outside = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    counts = (("values", outside.count(b",") + 1, MAX_VALUES), ("keys", outside.count(b":"), MAX_KEYS))
    for name, number, limit in counts:
        if number > limit:
            raise bad_request(f"the body has {number} {name}; it must have at most {limit}")


class _BoundedRequest(Request):
    async def json(self) -> Any:
        require_few_values(await self.body())
        return await super().json()


class BoundedRoute(APIRoute):
    """A route whose body is parsed only if it has few values."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            return await handle(_BoundedRequest(request.scope, request.receive))

        return handle_bounded
