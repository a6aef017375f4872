"""`llada-server`: load a checkpoint, serve it, shut down cleanly."""

import asyncio
import json
import logging
import os
import socket
import sys
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp

from server.settings import Settings

if TYPE_CHECKING:  # importing these would load torch before --help could answer
    from fastapi import FastAPI

    from server.service import Service


class JSONFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class Server(uvicorn.Server):
    """A uvicorn server that prints its address, and that drains before it stops listening.

    On the first signal the server is no longer ready and refuses new requests, while running ones may finish within the
    grace period; only then does uvicorn close. A second signal ends the process at once.
    """

    def __init__(self, config: uvicorn.Config, service: "Service") -> None:
        super().__init__(config)
        self._service = service
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            url_host = f"[{host}]" if ":" in host else host
            print(f"Serving {self._service.settings.model_name} on http://{url_host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        try:
            await self._service.running.drain()
        finally:
            self.should_exit = True


def main() -> None:
    """Run the server until a signal stops it."""
    try:
        settings = CliApp.run(Settings)
    except ValidationError as error:
        for problem in error.errors():
            option = "--" + str(problem["loc"][0]).replace("_", "-")
            print(f"llada-server: {option} is {problem['input']!r}: {problem['msg']}", file=sys.stderr)
        raise SystemExit(2) from None
    _configure_logging(settings)
    app = _load_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=5,
    )
    Server(config, app.state.service).run()


def _bound_kernel_caches() -> None:
    """Bound the kernel caches of oneDNN and torch, which have an entry per shape and read the limit at torch's import.

    A server keeps meeting new shapes. By default a thousand kernels are kept, each of a few hundred kilobytes.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, "128")


def _load_app(settings: Settings) -> "FastAPI":
    _bound_kernel_caches()
    # Imported here so that --help and a wrong option are answered without waiting for torch.
    from llada_core.checkpoint.load import DEMO_FOLDER, Checkpoint
    from llada_core.checkpoint.placement import Placement
    from llada_core.text.chat_template import ChatTemplate
    from server.app import create_app

    template = settings.chat_template
    try:
        placement = Placement.of(settings.device, settings.dtype, settings.quantization)
        checkpoint = Checkpoint.open(
            settings.model or DEMO_FOLDER,
            revision=settings.revision,
            chat_template=None if template is None else ChatTemplate(template.read_text(encoding="utf-8")),
        )
        return create_app(settings, checkpoint.load_model(placement), checkpoint.tokenizer)
    except (OSError, ValueError) as error:  # no such folder, hub out of reach, unreadable or unsupported checkpoint
        print(f"llada-server: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _configure_logging(settings: Settings) -> None:
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JSONFormatter() if settings.log_format == "json" else text)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


if __name__ == "__main__":
    main()
