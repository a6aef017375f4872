"""The addresses that are listened on, and what happens when no file is left for a connection."""

import asyncio
import errno
import resource
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from server.listening import listen, seldom_out_of_files
from tests.conftest import GOLDEN
from tests.server.conftest import until

TINY = str(GOLDEN / "models" / "tiny-mha")


def test_every_address_of_a_name_is_listened_on_at_one_port():
    sockets = listen("localhost", 0)
    try:
        assert len({bound.getsockname()[1] for bound in sockets}) == 1
        assert "127.0.0.1" in {bound.getsockname()[0] for bound in sockets}
    finally:
        for bound in sockets:
            bound.close()


@pytest.mark.parametrize("code", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_a_name_whose_first_address_the_machine_lacks_is_listened_on_at_the_others(monkeypatch, code):
    create = socket.create_server

    def without_ipv6(address, *, family):
        if family == socket.AF_INET6:
            raise OSError(code, "no IPv6 here")
        return create(address, family=family)

    found = [(socket.AF_INET6, 1, 6, "", ("::1", 0, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    (bound,) = listen("localhost", 0)
    with bound:
        assert bound.getsockname()[0] == "127.0.0.1"


def test_a_server_without_files_for_connections_says_so_once_and_serves_again_when_there_are_some(tmp_path):
    command = f"ulimit -n 300 && exec {sys.executable} -m server.cli --model {TINY} --port 0 --log-level warning"
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            ["bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=Path(__file__).parent.parent.parent,
        ) as process,
    ):
        try:
            url = httpx.URL(process.stdout.readline().split()[-1])
            assert (
                "--max-connections is 4096; with at most 300 open files (ulimit -n) it is lowered to 44"
                in log.read_text()
            )
            files = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files + 5, 300))
            held = [socket.create_connection((url.host, url.port)) for _ in range(30)]
            until(lambda: "connections wait until others end" in log.read_text())
            for connection in held:
                connection.close()
            until(lambda: httpx.get(f"{url}/health", timeout=20).status_code == 200)
            assert log.read_text().count(" ERROR ") == 1 and len(log.read_text().splitlines()) == 3
        finally:
            process.terminate()


def test_other_errors_of_the_event_loop_are_logged_as_ever(caplog):
    async def fail() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(seldom_out_of_files())
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)

    asyncio.run(fail())
    assert "ZeroDivisionError" in caplog.text
