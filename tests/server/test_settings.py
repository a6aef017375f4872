"""The options of `llada-server`."""

import httpx
import pytest

from server.settings import Settings
from tests.server.conftest import events_of, serving


def test_an_empty_api_key_is_refused(monkeypatch):
    for keys in ([""], "", "a,,b"):
        with pytest.raises(ValueError, match="empty entry"):
            Settings(api_key=keys)


def test_the_name_of_a_replica_is_in_the_ids_of_its_answers(tiny):
    body = {"prompt": [1, 2], "max_tokens": 2}
    with serving(tiny, replica_name="pod-7") as url:
        completion = httpx.post(f"{url}/v1/completions", json=body).json()
        (_, start), *_ = events_of(httpx.post(f"{url}/v1/denoise", json=body))
    assert completion["id"].startswith("cmpl-pod-7-") and start["id"].startswith("denoise-pod-7-")


@pytest.mark.parametrize("name", ["a/b", "a b", "a" * 64])
def test_the_name_of_a_replica_fits_into_a_path(name):
    with pytest.raises(ValueError, match="replica_name"):
        Settings(replica_name=name)
