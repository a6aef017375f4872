"""Labels of one token."""

from string import ascii_letters, ascii_uppercase

import pytest

from llada_core.decisions.labels import MOST_LABELS, Labels
from llada_core.errors import InvalidParameterError
from llada_core.text.tokenizer import Tokenizer


def test_labels_are_distinct_single_tokens_that_begin_with_the_alphabet(demo_tokenizer: Tokenizer) -> None:
    labels = Labels.of(demo_tokenizer)
    assert set("".join(labels.texts[:52])) == set(ascii_letters)
    assert "".join(labels.texts[:26]) == ascii_uppercase
    assert len(set(labels.token_ids)) == len(labels.texts) == len(labels) <= MOST_LABELS
    assert demo_tokenizer.encode_batch(labels.texts) == [[token_id] for token_id in labels.token_ids]


def test_more_options_than_labels_are_refused_by_name(demo_tokenizer: Tokenizer) -> None:
    labels = Labels.of(demo_tokenizer)
    labels.require(len(labels), "questions.3.choices")
    with pytest.raises(InvalidParameterError, match=r"questions\.3\.choices has 255 entries; .* at most") as error:
        labels.require(255, "questions.3.choices")
    assert error.value.field == "questions"
