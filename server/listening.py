"""Binds the server's address before the model is loaded: loading may take minutes, a port in use is known at once."""

import errno
import logging
import os
import resource
import socket
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

_LOG_EVERY_SECONDS = 60
# Where there is no limit: some systems take no larger number.
_ENOUGH_FILES = 10240


class ListenError(Exception):
    """An address can't be listened on; the message names it and the reason."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Bind every address of `host`; port 0 lets the system choose one, the same for all addresses.

    Raises:
        ListenError: the name is unknown, the address is not this machine's, or the port is taken.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        absent: OSError | None = None
        for family, address in dict.fromkeys((family, address) for family, *_, address in found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(socket.create_server((str(address[0]), chosen), family=family))
            except OSError as error:
                # "localhost" also has an IPv6 address on machines without IPv6, and often as its first.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
        if not sockets and absent is not None:
            raise absent
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise ListenError(f"can't listen on {host}, port {port}: {_reason(error)}") from None
    return sockets


def _reason(error: OSError) -> str:
    # Python's own text repeats the address; an unknown name has a number below 0 and a text of its own.
    is_system_error = error.errno is not None and error.errno > 0
    reason = os.strerror(error.errno or 0) if is_system_error else error.strerror or str(error)
    return reason.lower() + ("; choose another --port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "")


def raise_descriptor_limit() -> int:
    """Raise the number of files that this process may open, connections included, as far as it may; returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH_FILES if most == resource.RLIM_INFINITY else most
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


def seldom_out_of_files() -> Callable[[AbstractEventLoop, dict[str, Any]], None]:
    """A handler for an event loop's exceptions, which says once a minute that no connection can be accepted: asyncio
    would say it a hundred times a second, with a traceback.
    """
    last_said = -float(_LOG_EVERY_SECONDS)

    def handle(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal last_said
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
        elif time.monotonic() - last_said >= _LOG_EVERY_SECONDS:
            last_said = time.monotonic()
            logger.error("%s: connections wait until others end", os.strerror(error.errno or 0))

    return handle
