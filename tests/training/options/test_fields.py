from typing import get_args

from llada_core.sampling.params import METHODS
from llada_core.sampling.scores import REMASKING
from training.options.fields import Method, Remasking


def test_the_sampling_options_are_those_of_the_core():
    assert set(get_args(Method)) == set(METHODS)
    assert set(get_args(Remasking)) == set(REMASKING)
