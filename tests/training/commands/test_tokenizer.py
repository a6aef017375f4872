from tests.training.conftest import llada_train


def test_a_tokenizer_that_cannot_be_written_is_found_before_it_is_trained(workspace):
    result = llada_train(
        "tokenizer", "--output-dir", "/proc/out", "--train-data-path", workspace.folder / "pretrain.jsonl"
    )
    assert "--output-dir /proc/out: cannot be written" in result.stderr
