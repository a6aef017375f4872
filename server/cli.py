"""`llada-server`: bind the port, load a checkpoint, serve it, shut down cleanly."""

import asyncio
import gc
import logging
import os
import socket
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from llada_core.threads import spin_briefly
from server.http.connection import NUM_REFUSED, Connection, Limits, is_worth_logging
from server.listening import ListenError, listen, raise_descriptor_limit, seldom_out_of_files
from server.logs import configure_logging
from server.options import read_settings
from server.settings import Settings

if TYPE_CHECKING:  # importing these would load torch before --help could answer
    from fastapi import FastAPI

    from server.service import Service


logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_PROGRESS = 3

# Of uvicorn's main loop.
_TICKS_PER_SECOND = 10
_MAX_HEAD_BYTES = 64 * 1024
# Files that are not connections: weights while they load, the log, the event loop's own.
_OTHER_FILES = 128


class Server(uvicorn.Server):
    """A uvicorn server that prints its address once the model is loaded, and that drains before it stops listening.

    On the first signal the server is no longer ready and refuses new requests, while running ones may finish within the
    grace period; only then does uvicorn close. A second signal ends the process at once, whatever hangs, as does the
    first while the model is being loaded. If the engine breaks, the server closes by itself.
    """

    def __init__(self, settings: Settings, sockets: list[socket.socket]) -> None:
        # Imported here so that --help and a wrong option are answered without waiting for torch.
        from server.app import create_waiting_app
        from server.loading import LoadingApp

        self.app = LoadingApp(create_waiting_app(settings), lambda: load_app(settings), on_end=self._loading_ended)
        super().__init__(
            uvicorn.Config(
                self.app,
                http=Connection.with_limits(Limits(settings.max_connections, settings.client_timeout)),  # type: ignore[arg-type]
                ws="none",
                timeout_keep_alive=settings.keep_alive,  # type: ignore[arg-type]
                root_path=settings.root_path,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
            )
        )
        for name in ("uvicorn.error", "asyncio"):
            logging.getLogger(name).addFilter(is_worth_logging)
        self._settings = settings
        self._sockets = sockets
        self._draining: asyncio.Task[None] | None = None
        self.is_broken = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(seldom_out_of_files())
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS_PER_SECOND == 0:
            for connection in list(self.server_state.connections):
                connection.end_if_late(time.monotonic())  # type: ignore[union-attr]
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.app.loaded is None:
            self.should_exit = self.force_exit = True
        elif self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._drain(self.app.loaded.state.service))
        else:
            # Not by uvicorn: the interpreter would wait for threads that nobody can stop.
            os._exit(128 + sig)

    def _loading_ended(self) -> None:
        if self.app.error is not None:
            self.should_exit = True
            return
        assert self.app.loaded is not None
        service: Service = self.app.loaded.state.service
        service.engine.watch.on_broken = self._give_up
        if service.engine.watch.broken_by is not None:
            self._give_up()
        service.metrics.http.count_connections(lambda: len(self.server_state.connections))
        host, port = self._sockets[0].getsockname()[:2]
        url_host = f"[{host}]" if ":" in host else host
        print(f"Serving {self._settings.model_name} on http://{url_host}:{port}", flush=True)

    def _give_up(self) -> None:
        """Close, for a supervisor to start the server again. Answers under way may still be sent."""
        self.is_broken = self.should_exit = True

    async def _drain(self, service: "Service") -> None:
        try:
            await service.running.drain()
        finally:
            self.should_exit = True


def main() -> None:
    """Run the server until a signal stops it."""
    settings = read_settings(sys.argv[1:])
    configure_logging(settings)
    settings = _with_connections(settings, raise_descriptor_limit())
    try:
        sockets = listen(settings.host, settings.port)
    except ListenError as error:
        print(f"llada-server: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    spin_briefly()
    bound_kernel_caches()
    server = Server(settings, sockets)
    server.run(sockets)
    if server.app.error is not None:
        _explain(server.app.error)
        raise SystemExit(1)
    if server.is_broken:
        logging.shutdown()
        # A thread that hangs would keep the interpreter from ending.
        os._exit(1)
    if server.app.loaded is None:
        # The thread that loads cannot be stopped, and the interpreter might crash if it ended underneath it.
        os._exit(0)


def bound_kernel_caches() -> None:
    """Bound the kernel caches of oneDNN and torch, which have an entry per shape and read the limit at torch's import.

    A server keeps meeting new shapes. By default a thousand kernels are kept, each of a few hundred kilobytes.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, "128")


def load_app(settings: Settings) -> "FastAPI":
    """The application that these settings describe, with its model loaded; takes up to minutes.

    Raises:
        OSError, ValueError: the checkpoint, the adapter or the template can't be read, or they don't fit.
    """
    from llada_core.checkpoint.load import DEMO_FOLDER, Checkpoint
    from llada_core.checkpoint.placement import Placement
    from llada_core.text.chat_template import ChatTemplate
    from llada_core.threads import fastest_num_threads
    from server.app import create_app

    started = time.monotonic()
    logger.info("loading %s", settings.model_name)
    template = settings.chat_template
    placement = Placement.of(settings.device, settings.dtype, settings.quantization)
    checkpoint = Checkpoint.open(
        settings.model or DEMO_FOLDER,
        revision=settings.revision,
        adapter=settings.adapter,
        chat_template=None if template is None else ChatTemplate.from_file(template),
    )
    if checkpoint.tokenizer is None:
        logger.warning("%s has no tokenizer.json: prompts must be token ids, text gets status 400", settings.model)
    model = checkpoint.load_model(placement, on_progress=_Progress())
    if settings.threads is None and settings.model_threads == 1:
        settings = settings.model_copy(update={"threads": fastest_num_threads(model)})
    logger.info("loaded in %.1f s; threads: %s", time.monotonic() - started, settings.threads or "one each")
    app = create_app(settings, model, checkpoint.tokenizer, decision_temperature=checkpoint.decision_temperature)
    _spare_the_collector()
    return app


class _Progress:
    """Logs how much of the model is loaded, every few seconds."""

    def __init__(self) -> None:
        self._logged = time.monotonic()

    def __call__(self, share: float) -> None:
        if (now := time.monotonic()) >= self._logged + _SECONDS_BETWEEN_PROGRESS:
            self._logged = now
            logger.info("loaded %.0f %% of the weights", 100 * share)


def _spare_the_collector() -> None:
    """Keep Python's garbage collector from stopping everything while a body of a million lists is parsed.

    Nothing that exists now is garbage later, and a quarter of a million objects of the libraries need no visit each
    time. Parsing 4 MB of `[],` takes 0.12 s so, 1.1 s otherwise.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


def _with_connections(settings: Settings, max_files: int) -> Settings:
    """The settings with as many connections as there can be: each takes a file, refused ones too."""
    most = max(1, max_files - NUM_REFUSED - _OTHER_FILES)
    if settings.max_connections <= most:
        return settings
    logger.warning(
        "--max-connections is %d; with at most %d open files (ulimit -n) it is lowered to %d",
        settings.max_connections,
        max_files,
        most,
    )
    return settings.model_copy(update={"max_connections": most})


def _explain(error: BaseException) -> None:
    """Print why the model can't be loaded: no such folder, hub out of reach, unreadable or unsupported checkpoint."""
    if isinstance(error, (OSError, ValueError)):
        print(f"llada-server: {error}", file=sys.stderr)
    else:
        logger.error("the model can't be loaded", exc_info=error)


if __name__ == "__main__":
    main()
