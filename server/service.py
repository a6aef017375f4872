"""The model of this process, and the objects that take a request from its body to its answer."""

import time

from fastapi import Request

from llada_core.decisions.labels import Labels
from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.prepare import Vocabulary
from llada_core.sampling.sampler import Sampler
from llada_core.text.thinking import Beginning
from llada_core.text.tokenizer import Tokenizer
from server.canvases import Canvases
from server.constraints import Constraints
from server.engine.engine import Engine
from server.engine.metrics import Metrics
from server.http.api_error import model_not_found
from server.http.exchange import current_exchange
from server.prompts import Prompts
from server.replies.decisions import Decisions
from server.replies.endings import Endings
from server.replies.envelope import Envelope
from server.replies.likelihood import Likelihood
from server.replies.parking import Parking
from server.replies.reading import Reading
from server.replies.running import Running
from server.schemas.base import Body
from server.schemas.diffusion import DiffusionFields
from server.settings import Settings

# The fields that say who asked, and the most characters of each in the log.
_LOGGED = ("user", "safety_identifier", "prompt_cache_key", "metadata")
_MOST_LOGGED = 1500


class Service:
    """Everything that the routes work with.

    Attributes:
        created: when the model was loaded, in seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        model: MaskPredictor,
        tokenizer: Tokenizer | None,
        engine: Engine,
        metrics: Metrics,
        *,
        decision_temperature: float = 1.0,
    ) -> None:
        max_model_len = _max_model_len(settings, model)
        self.settings = settings
        self.engine = engine
        self.metrics = metrics
        self.created = int(time.time())
        vocabulary = Vocabulary.of(model, tokenizer)
        self.prompts = Prompts(
            tokenizer,
            max_model_len=max_model_len,
            max_waiting=settings.max_queue,
            thinking=_thinking(settings, tokenizer),
        )
        self.canvases = Canvases(vocabulary, max_model_len)
        self.constraints = Constraints(vocabulary, metrics.answers, max_waiting=settings.max_queue)
        self.likelihood = Likelihood(model, vocabulary, max_model_len, engine.max_batch_tokens, metrics.answers)
        self.decisions = Decisions(
            model,
            Labels.of(tokenizer) if tokenizer else None,
            decision_temperature,
            max_model_len,
            engine.max_batch_tokens,
            metrics.answers,
        )
        self.running = Running(engine, tokenizer, Endings(metrics.answers), settings)
        self.parking = Parking(self.running.abandon)
        self.reading = Reading(Sampler(model), vocabulary)

    def check_model(self, name: str | None) -> None:
        """Refuse the name of any model but the one served.

        Raises:
            APIError: there is no such model.
        """
        if name is not None and name != self.settings.model_name:
            raise model_not_found(name, self.settings.model_name)

    def envelope(self, body: DiffusionFields, prefix: str) -> Envelope:
        """The envelope of an answer to `body`. Its id is logged with the request, and so are user and metadata."""
        if replica := self.settings.replica_name:
            prefix = f"{prefix}{replica}-"
        envelope = Envelope.new(prefix, self.settings.model_name)
        current_exchange().answer_id = envelope.id
        log_who_asked(body)
        return envelope


def log_who_asked(body: Body) -> None:
    """Log with the request the fields of its body that say who sent it."""
    asked = {name: value for name in _LOGGED if (value := getattr(body, name, None)) is not None}
    current_exchange().asked = {name: str(value)[:_MOST_LOGGED] for name, value in asked.items()}


def client_of(request: Request) -> str:
    """Who sent this request, as far as fair shares go: an API key or, where there are none, an address."""
    client: str = request.state.client
    return client


def service_of(request: Request) -> Service:
    """The service of the app that received this request."""
    return request.app.state.service


def _thinking(settings: Settings, tokenizer: Tokenizer | None) -> Beginning | None:
    """How answers begin; None if they have no thinking that is told apart."""
    if tokenizer is None or settings.reasoning_parser == "none":
        return None
    return tokenizer.thinking or ("free" if settings.reasoning_parser == "think" else None)


def _max_model_len(settings: Settings, model: MaskPredictor) -> int:
    limit = model.shape.max_sequence_length
    length = settings.max_model_len or limit
    if length > limit:
        raise InvalidParameterError(
            f"--max-model-len is {length}; it must be at most the model's max_sequence_length, {limit}"
        )
    return length
