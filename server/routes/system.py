"""The served model, health, readiness, metrics, version."""

from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from server.http.api_error import APIError, engine_broken, model_not_found, shutting_down, steps_fail
from server.schemas.answers import Load, ModelCard, ModelList, Status, Version
from server.service import Service, service_of

# A step fails for a request of its own now and then; so many in a row are the server's fault.
MOST_FAILED_STEPS = 5

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> Status:
    """Answer 200 while the process lives and its model threads run, otherwise 503."""
    if service_of(request).engine.watch.broken_by is not None:
        raise engine_broken()
    return Status()


@router.get("/ready")
async def ready(request: Request) -> Status:
    """Answer 200 while requests are accepted, otherwise 503."""
    if (obstacle := _obstacle(service_of(request))) is not None:
        raise obstacle
    return Status()


@router.get("/ping")
@router.post("/ping")
async def ping(request: Request) -> Status:
    """Answer as `/health` does: the name under which SageMaker and vLLM have it."""
    return await health(request)


@router.get("/load")
async def load(request: Request) -> Load:
    """Count the requests under way, running and waiting, in vLLM's shape."""
    return Load(server_load=service_of(request).engine.num_unfinished)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    service = service_of(request)
    return Response(service.metrics.render(is_ready=_obstacle(service) is None), media_type=CONTENT_TYPE_LATEST)


@router.get("/version")
async def get_version() -> Version:
    """The server's version."""
    return Version(version=version("llada"))


@router.get("/v1/models")
@router.get("/v1/chat/completions/models")
@router.get("/v1/fim/completions/models")
async def list_models(request: Request) -> ModelList:
    """List the one model that is served; Inception's client asks for a task's models at the longer addresses."""
    return ModelList(data=[_model(service_of(request))])


@router.get("/v1/models/{model_id:path}")
async def get_model(model_id: str, request: Request) -> ModelCard:
    """Describe the model that is served."""
    service = service_of(request)
    if model_id != service.settings.model_name:
        raise model_not_found(model_id, service.settings.model_name)
    return _model(service)


def _obstacle(service: Service) -> APIError | None:
    """Why no request is accepted now, if none is."""
    if service.running.is_draining:
        return shutting_down()
    watch = service.engine.watch
    if watch.broken_by is None and watch.num_failed_in_a_row >= MOST_FAILED_STEPS:
        return steps_fail(watch.num_failed_in_a_row)
    return None if watch.broken_by is None else engine_broken()


def _model(service: Service) -> ModelCard:
    return ModelCard(
        id=service.settings.model_name,
        root=service.settings.model_name,
        created=service.created,
        max_model_len=service.canvases.max_model_len,
        mask_token_id=service.canvases.vocabulary.special_tokens.mask_id,
        vocab_size=service.canvases.vocabulary.shape.vocab_size,
    )
