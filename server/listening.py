"""Binds the server's address before the model is loaded: loading may take minutes, a port in use is known at once."""

import errno
import os
import socket


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
