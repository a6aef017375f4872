import pytest

from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.registry import ARCHITECTURES, find_architecture


def test_another_architecture_of_the_same_model_type_is_refused():
    with pytest.raises(UnsupportedCheckpointError, match="LLaDAMoEModelLM"):
        find_architecture({"model_type": "llada", "architectures": ["LLaDAMoEModelLM"]})


@pytest.mark.parametrize("named", [None, [], "LLaDAModelLM", ["LLaDAModelLM", "LLaDAMoEModelLM"], [7]])
def test_a_config_that_names_no_single_architecture_is_refused(named):
    with pytest.raises(UnsupportedCheckpointError, match="architectures is"):
        find_architecture({"architectures": named})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_tensor_of_an_architecture_has_a_name_by_role(name, tiny_network):
    architecture = ARCHITECTURES[name]
    config = tiny_network.config
    assert set(config.tensor_shapes()) == set(tiny_network.state_dict())
    assert architecture.tensor_name("query", 0) in config.tensor_shapes()
    assert architecture.tensor_name("embedding", None) in config.tensor_shapes()
