"""The options of `llada-server`."""

import pytest

from server.settings import Settings


def test_an_empty_api_key_is_refused(monkeypatch):
    for keys in ([""], "", "a,,b"):
        with pytest.raises(ValueError, match="empty entry"):
            Settings(api_key=keys)
