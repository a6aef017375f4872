import json

from llada_core.text.tokenizer import Tokenizer
from tests.training.conftest import CONFIG, succeed


def test_the_tokenizers_sizes_take_precedence_over_the_configs_and_it_says_so(workspace, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "vocab_size": 999}))
    printed = succeed(*workspace.pretrain(tmp_path / "out", "--model-config", config, "--max-steps", 1))
    size = len(Tokenizer.from_folder(workspace.folder / "tokenizer"))
    assert f"vocab_size: 999 in config.json, {size} in the tokenizer" in printed
