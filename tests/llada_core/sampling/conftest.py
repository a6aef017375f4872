import pytest

from llada_core import load_model
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from tests.conftest import GOLDEN


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


@pytest.fixture(scope="module")
def sdar():
    return load_model(GOLDEN / "family" / "sdar" / "models" / "tiny-variant")


@pytest.fixture(scope="module")
def llada2():
    return load_model(GOLDEN / "family" / "llada2_moe" / "models" / "tiny-mini-like")
