"""The application: a model, its engine, the routes and the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.sampler import Sampler
from llada_core.text.tokenizer import Tokenizer
from server.engine.engine import Engine
from server.engine.metrics import Metrics
from server.engine.scheduler import Scheduler
from server.http.api_error import ErrorBody, loading
from server.http.browser import BrowserGuard
from server.http.errors import install_error_handlers
from server.http.middleware import ApiKey, BodyLimit, Head, RequestBoundary, RootPath
from server.pages import mount_pages
from server.routes import chat, completions, denoise, responses, score, system, tokenize
from server.schemas.answers import Status
from server.service import Service
from server.settings import Settings

ROUTE_MODULES = (completions, chat, responses, denoise, score, tokenize, system)


def create_app(
    settings: Settings, model: MaskPredictor, tokenizer: Tokenizer | None, *, sampler: Sampler | None = None
) -> FastAPI:
    """An ASGI app that serves `model`; its model threads run for the app's lifespan.

    Args:
        sampler: replaces the model's own sampler, for tests that need a slow or failing one.
    """
    metrics = Metrics()
    engine = Engine(
        sampler or Sampler(model),
        _scheduler(settings, model.device),
        metrics,
        model_threads=settings.model_threads,
        threads=settings.threads,
        step_timeout=settings.step_timeout,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    app = FastAPI(
        title="LLaDA server",
        version=version("llada"),
        lifespan=lifespan,
        strict_content_type=False,
        redirect_slashes=False,
        # `pages` has an API page that loads nothing from other hosts.
        docs_url=None,
        redoc_url=None,
        # The shape of every error; it also keeps FastAPI from documenting a 422 that this server never sends.
        responses={"default": {"model": ErrorBody, "description": "an error"}},
    )
    app.state.service = Service(settings, model, tokenizer, engine, metrics)
    # Only described here, for the API page's "Authorize"; the middleware checks the key.
    described = [Depends(HTTPBearer(auto_error=False))] if settings.api_key else []
    for module in ROUTE_MODULES:
        app.include_router(module.router, dependencies=described)
    mount_pages(app)
    install_error_handlers(app, paths=[route.path for module in ROUTE_MODULES for route in module.router.routes])
    _add_middleware(app, settings, metrics)
    return app


def create_waiting_app(settings: Settings) -> FastAPI:
    """An ASGI app for the time in which the model is loaded: alive, and not ready; the page waits with it."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    mount_pages(app)

    @app.get("/health")
    @app.get("/ping")
    async def health() -> Status:
        return Status()

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
    async def refuse(path: str) -> None:
        raise loading()

    install_error_handlers(app, paths=())
    _add_middleware(app, settings, Metrics())
    return app


def _scheduler(settings: Settings, device: torch.device) -> Scheduler:
    is_cpu = device.type == "cpu"
    if settings.model_threads > 1 and not is_cpu:
        raise InvalidParameterError(f"--model-threads is {settings.model_threads}; it must be 1 on {device.type}")
    # One or two canvases keep a CPU busy; a larger step only makes each of them wait longer (docs/speed.md).
    default_batch_tokens = 256 if is_cpu else 8192
    return Scheduler(
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens or default_batch_tokens,
        max_queue=settings.max_queue,
        kv_cache_memory=_free_memory(device) // 2 if settings.kv_cache_memory is None else settings.kv_cache_memory,
        model_threads=settings.model_threads,
    )


def _free_memory(device: torch.device) -> int:
    """The bytes that are free, with the model loaded."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = int(psutil.virtual_memory().available)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    try:
        # A container may not use all of the host's memory (cgroup v2; without a limit the file says "max").
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):
        return free


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    # The last one added is the outermost: CORS answers preflights without a key, and adds its headers to every error.
    app.add_middleware(BodyLimit)
    if settings.api_key:
        app.add_middleware(ApiKey, keys=settings.api_key)
    app.add_middleware(
        BrowserGuard, host=settings.host, allowed_hosts=settings.allowed_host, origins=settings.cors_origin
    )
    app.add_middleware(RequestBoundary, metrics=metrics)
    app.add_middleware(Head)
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)
    if settings.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
