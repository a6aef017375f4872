import pytest

from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response


@pytest.fixture
def make(tiny):
    def make(prompt=(1, 2), pinned=None, **params):
        return prepare_response(
            list(prompt),
            GenerationParams(**params),
            Vocabulary.of(tiny),
            pinned=pinned,
        )

    return make
