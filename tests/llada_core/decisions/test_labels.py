"""Labels of one token."""

from string import ascii_uppercase

from llada_core import DEMO_FOLDER
from llada_core.decisions.labels import MOST_LABELS, Labels
from llada_core.text.tokenizer import Tokenizer


def test_labels_are_distinct_single_tokens_that_begin_with_the_alphabet() -> None:
    tokenizer = Tokenizer.from_folder(DEMO_FOLDER)
    labels = Labels.of(tokenizer)
    assert "".join(labels.texts[:26]) == ascii_uppercase
    assert len(set(labels.token_ids)) == len(labels.texts) == len(labels) <= MOST_LABELS
    assert tokenizer.encode_batch(labels.texts) == [[token_id] for token_id in labels.token_ids]
