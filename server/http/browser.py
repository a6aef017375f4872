"""Protection against web pages of other origins, which a browser lets send requests to any address, this server's too.

Two checks here, and a few headers that `RequestBoundary` sets. The `Host` must be the server's own, else a page could
give its own name the server's address (DNS rebinding). A request that a browser marks as coming from another origin
must come from one that `--cors-origin` names: CORS headers only keep a page from reading the answer, and a generation
has cost by then.
"""

import ipaddress
import socket
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.api_error import APIError, cross_site, host_not_allowed

ANY = "*"
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

# What every answer tells a browser.
BROWSER_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # For whatever sets no policy of its own, as JSON and the API page do.
    "content-security-policy": "frame-ancestors 'none'",
}


class BrowserGuard:
    """Refuses requests for another server's name, and those that another origin's page makes."""

    def __init__(self, app: ASGIApp, host: str, allowed_hosts: Collection[str], origins: Collection[str]) -> None:
        """
        Args:
            host: the name or address that the server listens on.
            allowed_hosts: further names under which it is reached; `*` for any.
            origins: origins whose pages may send requests; `*` for any.
        """
        self._app = app
        self._hosts = own_names(host) | {name.lower() for name in allowed_hosts}
        # An address can't be rebound, so on a machine's every address any address is the server's own.
        self._is_any_address = _is_unspecified(host)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(scope["method"], Headers(scope=scope))) is not None:
            raise error
        await self._app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> APIError | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return host_not_allowed(host)
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        is_cross_site = origin is not None and origin.partition("://")[2] != host
        if origin is None and site in ("cross-site", "same-site"):
            # Following a link to the page is no request on behalf of another site.
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
            is_cross_site = not (is_link and method in ("GET", "HEAD"))
        if is_cross_site and ANY not in self._origins and origin not in self._origins:
            return cross_site(origin or site or "")
        return None

    def _is_own(self, host_header: str) -> bool:
        name = hostname(host_header)
        # Only HTTP/1.0 has no Host, and no browser speaks it.
        if not name or ANY in self._hosts or name in self._hosts:
            return True
        return self._is_any_address and _is_address(name)


def own_names(host: str) -> frozenset[str]:
    """The names that a server listening on `host` is reached by, in lower case."""
    name = host.strip("[]").lower()
    if _is_unspecified(name):
        return _LOOPBACK_NAMES | {socket.gethostname().lower()}
    is_loopback = name in _LOOPBACK_NAMES or (_is_address(name) and ipaddress.ip_address(name).is_loopback)
    return _LOOPBACK_NAMES | {name} if is_loopback else frozenset({name})


def hostname(host_header: str) -> str:
    """The name or address of a `Host` header, in lower case, without port and brackets."""
    if host_header.startswith("["):
        return host_header[1:].partition("]")[0].lower()
    return host_header.partition(":")[0].lower()


def _is_unspecified(host: str) -> bool:
    return host == "" or (_is_address(host) and ipaddress.ip_address(host).is_unspecified)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
