"""The application of a server whose model is still being loaded: it listens at once, and says so."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class LoadingApp:
    """Hands requests to `waiting` until the loaded application takes over.

    Attributes:
        loaded: the application with the model; None while it is being loaded.
        error: why it can't be loaded, if it can't.
    """

    def __init__(self, waiting: ASGIApp, load: Callable[[], FastAPI], *, on_end: Callable[[], None]) -> None:
        """
        Args:
            load: loads the model, for minutes; called in a thread of its own.
            on_end: called on the event loop when `loaded` or `error` is set.
        """
        self.loaded: FastAPI | None = None
        self.error: BaseException | None = None
        self._waiting = waiting
        self._load = load
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await (self.loaded or self._waiting)(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()
            loading = asyncio.create_task(self._take_over(stack))
            await send({"type": "lifespan.startup.complete"})
            await receive()
            loading.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    async def _take_over(self, stack: AsyncExitStack) -> None:
        try:
            app = await self._loaded_in_a_thread()
            await stack.enter_async_context(app.router.lifespan_context(app))
            self.loaded = app
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.error = error
        self._on_end()

    async def _loaded_in_a_thread(self) -> FastAPI:
        """Load in a daemon thread: unlike those of an executor, it does not keep an interrupted process alive."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[FastAPI] = loop.create_future()

        def deliver(app: FastAPI | None, error: BaseException | None) -> None:
            if result.cancelled():
                return
            if app is not None:
                result.set_result(app)
            else:
                assert error is not None
                result.set_exception(error)

        def load() -> None:
            app: FastAPI | None = None
            error: BaseException | None = None
            try:
                app = self._load()
            except BaseException as caught:  # a panic of a library is no `Exception`
                error = caught
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver, app, error)

        threading.Thread(target=load, name="load", daemon=True).start()
        return await result
