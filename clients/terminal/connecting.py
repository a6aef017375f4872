"""Which server a command asks, with which fields."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import typer

from clients.asynchronous import AsyncLLaDAClient
from clients.client import LLaDAClient
from clients.errors import APIError, LLaDAError


@dataclass(frozen=True, slots=True)
class Ask:
    """A server and what it is asked for.

    Attributes:
        server, api_key: from the environment if None.
        fields: the fields of the request's body, besides the prompt.
    """

    server: str | None
    api_key: str | None
    fields: Mapping[str, Any]

    def client(self) -> LLaDAClient:
        """A client of the server.

        Raises:
            LLaDAError: nobody answers there, or something else does.
        """
        self._find_server()
        return self._client(max_retries=3)

    def async_client(self) -> AsyncLLaDAClient:
        """The same, for several requests at once."""
        self._find_server()
        return AsyncLLaDAClient(self.server, api_key=self.api_key)

    def _find_server(self) -> None:
        """Ask once and without patience: a client would try for seconds to reach a server that is not there."""
        with self._client(max_retries=0) as client:
            try:
                client.models()
            except APIError:
                return  # somebody answers; the request itself will say what is wrong
            except (KeyError, TypeError, ValueError) as error:
                raise LLaDAError("what answers there is not a llada-server") from error

    def _client(self, max_retries: int) -> LLaDAClient:
        server = self.server or os.environ.get("LLADA_SERVER")
        if server and not server.startswith(("http://", "https://")):
            raise typer.BadParameter(f"{server!r} does not begin with http:// or https://", param_hint="--server")
        try:
            return LLaDAClient(self.server, api_key=self.api_key, max_retries=max_retries)
        except httpx.InvalidURL as error:
            raise typer.BadParameter(f"not a URL: {error}", param_hint="--server") from error
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--api-key") from error
