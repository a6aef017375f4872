"""A proxy that breaks connections in the middle of an answer."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class CuttingProxy:
    """Forwards to a server, and cuts the first answers after so many bytes each.

    Attributes:
        url: where it listens.
        num_cut: answers that it has cut so far.
    """

    def __init__(self, server: str, *cuts: int) -> None:
        parts = urlsplit(server)
        assert parts.hostname is not None and parts.port is not None
        self._server = parts.hostname, parts.port
        self._cuts = list(cuts)
        self.num_cut = 0

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        cut = self._cuts.pop(0) if self._cuts else None
        with client, socket.create_connection(self._server) as server:
            threading.Thread(target=self._copy, args=(client, server, None), daemon=True).start()
            if self._copy(server, client, cut):
                self.num_cut += 1
            for end in (client, server):
                with suppress(OSError):
                    # Closing alone would leave it open for the thread that reads from it.
                    end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket, cut: int | None) -> bool:
        """Copy until the end, or until `cut` bytes have been sent; whether it was cut."""
        sent = 0
        try:
            while content := source.recv(512):
                target.sendall(content if cut is None else content[: cut - sent])
                sent += len(content)
                if cut is not None and sent >= cut:
                    return True
        except OSError:
            pass
        return False
