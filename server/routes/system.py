"""Models, health, readiness, metrics, version."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse

from server.errors import model_not_found
from server.state import ServerState, state_of

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> JSONResponse:
    """200 while the process lives and the engine thread runs."""
    is_alive = state_of(request).engine.is_alive
    return JSONResponse({"status": "ok" if is_alive else "engine stopped"}, 200 if is_alive else 503)


@router.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """200 when requests are accepted, 503 while shutting down."""
    is_ready = state_of(request).is_ready
    return JSONResponse({"status": "ready" if is_ready else "not ready"}, 200 if is_ready else 503)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus text."""
    return Response(state_of(request).metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version")
async def get_version() -> dict[str, str]:
    """The server's version."""
    return {"version": version("llada")}


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """The one model served, as a list."""
    return {"object": "list", "data": [_model(state_of(request))]}


@router.get("/v1/models/{model_id:path}")
async def get_model(model_id: str, request: Request) -> dict[str, Any]:
    """The model served."""
    state = state_of(request)
    if model_id != state.settings.model_name:
        raise model_not_found(model_id, state.settings.model_name)
    return _model(state)


def _model(state: ServerState) -> dict[str, Any]:
    return {
        "id": state.settings.model_name,
        "object": "model",
        "created": state.created,
        "owned_by": "llada",
        "max_model_len": state.max_model_len,
        "mask_token_id": state.special_tokens.mask_id,
        "vocab_size": state.config.vocab_size,
    }
