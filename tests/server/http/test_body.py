"""The bounds on the number of values in a body."""

import json

import pytest

from server.http.api_error import APIError
from server.http.body import MAX_KEYS, MAX_VALUES, require_few_values


def body(value):
    return json.dumps(value, separators=(",", ":")).encode()


def test_the_most_values_and_keys_are_accepted():
    require_few_values(body([0] * MAX_VALUES))
    require_few_values(body({f"k{number}": 0 for number in range(MAX_KEYS)}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0] * (MAX_VALUES + 1), "the body has 524289 values; it must have at most 524288"),
        (['"\\'] * (MAX_VALUES + 1), "524289 values"),
        ({f"k{number}": 0 for number in range(MAX_KEYS + 1)}, "the body has 65537 keys; it must have at most 65536"),
        ([{'\\":,"': "\\\\"}] * (MAX_KEYS + 1), "65537 keys"),
    ],
    ids=["values", "escaped values", "keys", "escaped keys"],
)
def test_more_are_refused(value, message):
    with pytest.raises(APIError, match=message):
        require_few_values(body(value))


@pytest.mark.parametrize("text", [",:" * 2**20, '",":"' * 2**19, '\\",\\":' * 2**19, "\\" * 2**21 + "," * 2**20])
def test_commas_and_colons_in_texts_do_not_count(text):
    require_few_values(body({"prompt": text, "user": "\\"}))
