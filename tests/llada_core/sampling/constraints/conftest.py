import pytest

from llada_core.sampling.constraints.compile import compile_constraint
from tests.vocabularies import vocabulary_of


@pytest.fixture
def compile_pattern():
    """Compiles a pattern for a vocabulary of 4096 tokens."""
    return lambda pattern: compile_constraint(pattern, vocabulary_of(4096))
