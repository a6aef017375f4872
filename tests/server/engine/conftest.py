from collections.abc import Callable

import pytest

from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from server.engine.mailbox import Mailbox
from server.engine.scheduler import Request


@pytest.fixture
def request_of(tiny) -> Callable[..., Request]:
    """Makes requests whose steps send so many tokens through the model."""

    def request_of(length: int, client: str = "", **params: object) -> Request:
        params = GenerationParams(gen_length=length - 1, **params)
        return Request(prepare_response([1], params, Vocabulary.of(tiny)), Mailbox(), client)

    return request_of
