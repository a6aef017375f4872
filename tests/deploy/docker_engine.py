"""A Docker engine for the check: the one that runs, else one started for the duration of a block.

Where no image can be pulled, an engine of the check's own gets stand-ins under the images' names: Debian's packages on
a base made by debootstrap.
"""

import contextlib
import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_COMPOSE = "`docker compose` is missing; tests/deploy/install_docker.sh installs it on Debian"
BASE = "python:3.12-slim-bookworm"
_SUITE = "bookworm"
_SUITE_PYTHON = "3.11"
_START_SECONDS = 30

# Image → Dockerfile of its stand-in. Debian has no package of Grafana.
_STAND_INS = {
    "nginxinc/nginx-unprivileged:1.28-alpine": r"""
        RUN apt-get update -q && apt-get install -y -q --no-install-recommends nginx-light
        RUN printf 'pid /tmp/pid; error_log stderr; events {} http { access_log /dev/stdout; \
            client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi; \
            uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi; include conf.d/*; }' > /etc/nginx/nginx.conf
        USER 101
        STOPSIGNAL SIGQUIT
        CMD ["nginx", "-g", "daemon off;"]
    """,
    "prom/prometheus:v3.5.0": """
        RUN apt-get update -q && apt-get install -y -q --no-install-recommends prometheus
        RUN install --directory --owner nobody --group nogroup /prometheus
        USER nobody
        ENTRYPOINT ["prometheus"]
    """,
}


class Docker:
    """The command `docker` with an engine.

    Attributes:
        can_be_given_stand_ins: the engine is the check's own, so an image may be replaced.
        has_stand_in_base: the base image was replaced.
    """

    def __init__(self, host: str | None, folder: Path) -> None:
        """
        Args:
            host: the engine's address; None for the one that `docker` takes by default.
            folder: for files of the stand-ins.
        """
        self.can_be_given_stand_ins = host is not None
        self._environment = {**os.environ, **({"DOCKER_HOST": host} if host else {})}
        self._folder = folder
        self.has_stand_in_base = False

    def __call__(self, *words: str, check: bool = True, stdin: str | None = None, **environment: str) -> str:
        """Run a subcommand and return what it prints; the output of one that fails is in the error."""
        done = subprocess.run(
            ["docker", *words],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            env={**self._environment, **environment},
            cwd=ROOT,
        )
        has_failed = check and done.returncode != 0
        assert not has_failed, f"docker {' '.join(words)}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def has(self, image: str) -> bool:
        return bool(self("images", "--quiet", image))

    def obtain(self, image: str) -> str | None:
        """Make an image available, by a pull if possible; returns where it comes from, None if it cannot be had."""
        if self.has(image):
            return "was there"
        self("pull", "--quiet", image, check=False)
        if self.has(image):
            return "pulled"
        if not self.can_be_given_stand_ins or image not in (BASE, *_STAND_INS):
            return None
        if image == BASE:
            self._make_base()
        else:
            dockerfile = f"FROM {BASE}\n{_STAND_INS[image]}"
            self("build", "--network", "host", "--tag", image, "-", stdin=dockerfile, DOCKER_BUILDKIT="0")
        return "stand-in"

    def _make_base(self) -> None:
        """Debian with its Python, whose pip finds only the packages that this machine's pip has fetched."""
        rootfs = self._folder / "rootfs"
        packages = "ca-certificates,python3,python3-venv"
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={packages}", _SUITE, rootfs],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(rootfs / waste)
        (rootfs / "usr/bin/python").symlink_to("python3")
        (rootfs / "etc/pip.conf").write_text(f"[global]\nno-index = true\nfind-links = {self._serve_wheels()}\n")
        archive = self._folder / "rootfs.tar"
        subprocess.run(["tar", "-C", rootfs, "-cf", archive, "."], check=True)
        self("import", str(archive), BASE)
        archive.unlink()
        shutil.rmtree(rootfs)
        self.has_stand_in_base = True

    def _serve_wheels(self) -> str:
        """Fetch the image's packages with this machine's pip, however it is configured; returns their address."""
        wheels = self._folder / "wheels"
        torch = next(line for line in (ROOT / "requirements.lock").read_text().split() if line.startswith("torch=="))
        index = os.environ.get("TORCH_INDEX_URL")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        download += ["--only-binary", ":all:", "--python-version", _SUITE_PYTHON, "--dest", str(wheels)]
        for words in (["-r", "deploy/image.lock"], [torch, *(["--index-url", index] if index else [])]):
            subprocess.run([*download, *words], check=True, cwd=ROOT, stderr=subprocess.DEVNULL)
        handler = functools.partial(_QuietHandler, directory=str(wheels))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def has_compose() -> bool:
    return shutil.which("docker") is not None and _succeeds("docker", "compose", "version")


def _succeeds(*words: str) -> bool:
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def docker_engine() -> Iterator[Docker]:
    """The engine that `docker` reaches, or one started for this block. Skips the test if there can be none."""
    if not has_compose():
        pytest.skip(NO_COMPOSE)
    # On a disk: /tmp may be in memory, and images need 3 GB.
    with tempfile.TemporaryDirectory(prefix="llada-docker-", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        folder = Path(name)
        if _succeeds("docker", "info"):
            yield Docker(None, folder)
        elif os.getuid() != 0 or shutil.which("dockerd") is None or shutil.which("debootstrap") is None:
            pytest.skip("no Docker engine runs, and starting one needs root, `dockerd` and `debootstrap`")
        else:
            with _started(folder) as host:
                yield Docker(host, folder)


@contextlib.contextmanager
def _started(folder: Path) -> Iterator[str]:
    """Run `dockerd` with everything it writes in this folder, and without a change to this machine's firewall."""
    host = f"unix://{folder}/socket"
    options = {"host": host, "data-root": f"{folder}/data", "exec-root": f"{folder}/exec", "pidfile": f"{folder}/pid"}
    words = [f"--{name}={value}" for name, value in options.items()]
    # Without a default bridge and rules of iptables, containers reach each other and this machine, and nothing else.
    words += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(["dockerd", *words], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _succeeds("docker", "--host", host, "info"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"dockerd cannot run here: {log.read_text().strip().splitlines()[-1]}")
            time.sleep(0.2)
        yield host
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        # The engine leaves the network namespace of containers on the host's network mounted.
        for mount in Path("/proc/self/mounts").read_text().splitlines():
            if (target := mount.split()[1]).startswith(f"{folder}/"):
                subprocess.run(["umount", target], check=True)
