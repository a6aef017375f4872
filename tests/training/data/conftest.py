import pytest

from llada_core.text.tokenizer import Tokenizer
from training.commands.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["one two three four"] * 3, vocab_size=300, output_dir=folder)
    return Tokenizer.from_folder(folder)
