"""The server as an autoscaled deployment of Ray Serve: `pip install .[ray]`, then `serve run deploy.ray_serve:app`.

The options of `llada-server` are its arguments (`serve run deploy.ray_serve:app model=GSAI-ML/LLaDA-8B-Instruct`) or
environment variables. A Serve config file changes the deployment `LLaDA`: replicas, GPUs for each, delays.
"""

from collections.abc import Sequence
from pickle import loads
from random import sample

from fastapi import FastAPI
from ray import serve
from ray.exceptions import TaskCancelledError
from ray.serve.config import RequestRouterConfig
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llada_core.threads import spin_briefly
from server.cli import bound_kernel_caches, load_app
from server.settings import Settings

_STREAMS = "/v1/denoise/"
_HEALTH_CHECK_SECONDS = 2


class StreamRouter(RequestRouter):
    """Sends a request for a stream to the replica that its id names, any other to the replica with the least to do."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> Sequence[list[RunningReplica]]:
        """The replicas that may get the request; Ray takes the one with the fewest requests under way.

        On a tie it takes the first, so their order is random.
        """
        shuffled = sample(candidate_replicas, len(candidate_replicas))
        if pending_request is None:
            return [shuffled]
        # Wait between two attempts while all are busy.
        pending_request.routing_context.should_backoff = True
        name = replica_of(_path(pending_request))
        holders = [replica for replica in candidate_replicas if replica.replica_id.unique_id == name]
        # Without its replica a stream is lost, and any other says so.
        return [holders or shuffled]


class Disconnection:
    """Says in ASGI's way that the client has left: Ray cancels the request, and the next `receive` raises that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_until_cancelled() -> Message:
            try:
                return await receive()
            except TaskCancelledError:
                return {"type": "http.disconnect"}

        await self._app(scope, receive_until_cancelled if scope["type"] == "http" else receive, send)


def replica_of(path: str) -> str | None:
    """The name of the replica that keeps the stream of this path, `/v1/denoise/denoise-{name}-{random}`."""
    _, is_stream, rest = path.partition(_STREAMS)
    return rest.partition("/")[0].removeprefix("denoise-").rpartition("-")[0] if is_stream else None


def deployment(settings: Settings) -> serve.Deployment:
    """A deployment whose replicas are `llada-server`s with these settings, named by Ray."""

    def load() -> FastAPI:
        spin_briefly()
        bound_kernel_caches()
        name = serve.get_replica_context().replica_id.unique_id
        app = load_app(settings.model_copy(update={"replica_name": name}))
        app.add_middleware(Disconnection)
        return app

    @serve.ingress(load)
    class LLaDA:
        # Set by `ingress`.
        app: FastAPI

        def check_health(self) -> None:
            """Let Ray replace a replica whose `/health` is 503."""
            if (broken_by := self.app.state.service.engine.watch.broken_by) is not None:
                raise RuntimeError("the engine is broken") from broken_by

    return serve.deployment(
        LLaDA,
        # A replica more once the batches are full and requests begin to wait.
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 8,
            "target_ongoing_requests": settings.max_batch_size,
        },
        # The replica itself answers 429: Ray would let requests wait without telling anyone.
        max_ongoing_requests=settings.max_batch_size + settings.max_queue,
        max_queued_requests=settings.max_queue,
        request_router_config=RequestRouterConfig(request_router_class=StreamRouter),
        health_check_period_s=_HEALTH_CHECK_SECONDS,
        graceful_shutdown_timeout_s=settings.shutdown_grace,
    )


def app(settings: Settings) -> serve.Application:
    """Build the application; Ray makes `settings` of the arguments of `serve run` or of the config file."""
    return deployment(settings).bind()


def _path(pending_request: PendingRequest) -> str:
    # Ray's proxy sends a request as a pickle, whose scope is ASGI's.
    return loads(pending_request.args[0]).asgi_scope["path"]
