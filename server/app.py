"""The application: a model, its engine, the routes and the page."""

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch
from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPBearer

from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.model.prefix_pool import PrefixPool
from llada_core.sampling.sampler import Sampler
from llada_core.text.tokenizer import Tokenizer
from server.engine.engine import Engine
from server.engine.metrics import Metrics
from server.engine.scheduler import Scheduler
from server.http.access import AccessLog, is_quiet
from server.http.api_error import ErrorBody, loading
from server.http.browser import BrowserGuard
from server.http.errors import install_error_handlers
from server.http.middleware import ApiKey, BodyLimit, Head, RequestBoundary, RootPath
from server.http.tracing import Tracing, exporting_provider
from server.pages import mount_pages
from server.routes import chat, completions, decisions, denoise, responses, score, system, tokenize
from server.schemas.answers import Status
from server.service import Service
from server.settings import Settings

ROUTE_MODULES = (completions, chat, responses, denoise, decisions, score, tokenize, system)


def create_app(
    settings: Settings,
    model: MaskPredictor,
    tokenizer: Tokenizer | None,
    *,
    decision_temperature: float = 1.0,
    sampler: Sampler | None = None,
) -> FastAPI:
    """An ASGI app that serves `model`; its model threads run for the app's lifespan.

    Args:
        decision_temperature: the temperature of decisions whose request names none.
        sampler: replaces the model's own sampler, for tests that need a slow or failing one.
    """
    metrics = Metrics()
    _describe(metrics, settings, model)
    tracing = Tracing(settings.model_name, exporting_provider())
    prefix_pool = _prefix_pool(settings, model, metrics)
    engine = Engine(
        sampler or Sampler(model, prefix_pool),
        _scheduler(settings, model.device, metrics),
        metrics.engine,
        model_threads=settings.model_threads,
        threads=settings.threads,
        step_timeout=settings.step_timeout,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()
        tracing.close()

    app = FastAPI(
        title="LLaDA server",
        version=version("llada"),
        lifespan=lifespan,
        strict_content_type=False,
        redirect_slashes=False,
        telemetry=tracing.config(exclude=is_quiet),
        # `pages` has an API page that loads nothing from other hosts.
        docs_url=None,
        redoc_url=None,
        # The shape of every error; it also keeps FastAPI from documenting a 422 that this server never sends.
        responses={"default": {"model": ErrorBody, "description": "an error"}},
    )
    app.state.service = Service(settings, model, tokenizer, engine, metrics, decision_temperature=decision_temperature)
    # Only described here, for the API page's "Authorize"; the middleware checks the key.
    described = [Depends(HTTPBearer(auto_error=False))] if settings.api_key else []
    for module in ROUTE_MODULES:
        app.include_router(module.router, dependencies=described)
    mount_pages(app)
    install_error_handlers(app, paths=[route.path for module in ROUTE_MODULES for route in module.router.routes])
    _add_middleware(app, settings, metrics, tracing)
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
    _add_middleware(app, settings, Metrics(), Tracing(settings.model_name, None))
    return app


def _scheduler(settings: Settings, device: torch.device, metrics: Metrics) -> Scheduler:
    is_cpu = device.type == "cpu"
    if settings.model_threads > 1 and not is_cpu:
        raise InvalidParameterError(f"--model-threads is {settings.model_threads}; it must be 1 on {device.type}")
    # One or two canvases keep a CPU busy; a larger step only makes each of them wait longer (docs/speed.md).
    default_batch_tokens = 256 if is_cpu else 8192
    kv_cache_memory = _free_memory(device) // 2 if settings.kv_cache_memory is None else settings.kv_cache_memory
    metrics.limit("llada_max_batch_size", "Most requests that run at once", settings.max_batch_size)
    metrics.limit("llada_max_queue", "Most requests that may wait", settings.max_queue)
    metrics.limit("llada_max_connections", "Most connections that are served at once", settings.max_connections)
    metrics.limit("llada_kv_cache_limit_bytes", "Memory for the keys and values of all requests", kv_cache_memory)
    return Scheduler(
        max_batch_size=settings.max_batch_size,
        max_batch_tokens=settings.max_batch_tokens or default_batch_tokens,
        max_queue=settings.max_queue,
        kv_cache_memory=kv_cache_memory,
        model_threads=settings.model_threads,
    )


def _prefix_pool(settings: Settings, model: MaskPredictor, metrics: Metrics) -> PrefixPool | None:
    """The pool of finished blocks that requests share; None if it may hold none, or the model has none."""
    max_bytes = 0
    if model.shape.block_length is not None:
        limit = settings.prefix_cache_memory
        max_bytes = _free_memory(model.device) // 4 if limit is None else limit
    metrics.limit("llada_prefix_cache_limit_bytes", "Memory for finished blocks that requests share", max_bytes)
    if max_bytes == 0:
        return None
    pool = PrefixPool(model, max_bytes)
    metrics.engine.measure_prefix_cache(lambda: pool.num_bytes)
    return pool


def _describe(metrics: Metrics, settings: Settings, model: MaskPredictor) -> None:
    metrics.describe(
        "llada_build",
        "The code that runs",
        version=version("llada"),
        torch=version("torch"),
        python=platform.python_version(),
    )
    metrics.describe(
        "llada_model",
        "The model that is served",
        model=settings.model_name,
        dtype=str(model.dtype).removeprefix("torch."),
        device=model.device,
        quantization=settings.quantization,
    )


def _free_memory(device: torch.device) -> int:
    """The bytes that are free, with the model loaded."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = int(psutil.virtual_memory().available)
    # A container may not use all of the host's memory: cgroup v2, which calls no limit "max", and v1.
    for names in ("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"):
        with suppress(OSError, ValueError):
            limit, used = (int((Path("/sys/fs/cgroup") / name).read_text()) for name in names)
            free = min(free, limit - used)
    return free


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics, tracing: Tracing) -> None:
    # The last one added is the outermost: every request has a line in the log. CORS answers preflights without a key,
    # and adds its headers to every error.
    app.add_middleware(BodyLimit)
    if settings.api_key:
        app.add_middleware(ApiKey, keys=settings.api_key)
    app.add_middleware(
        BrowserGuard, host=settings.host, allowed_hosts=settings.allowed_host, origins=settings.cors_origin
    )
    app.add_middleware(RequestBoundary)
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
    app.add_middleware(AccessLog, metrics=metrics.http, tracing=tracing)
