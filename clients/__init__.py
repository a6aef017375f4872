"""A client for `llada-server`: completions, chats, and the states of a canvas while it is denoised.

    from clients import LLaDAClient

    client = LLaDAClient()
    print(client.chat("What is the capital of France?").text)
    for event in client.denoise("Once upon a time", max_tokens=32):
        print(event)

The public names are imported when they are first used: the server takes the page from this package and needs no client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.asynchronous import AsyncLLaDAClient
    from clients.calls import Completion, Fork, Gap, Model, Score
    from clients.client import LLaDAClient
    from clients.errors import (
        APIError,
        AuthenticationError,
        BadRequestError,
        LLaDAError,
        NoServerError,
        NotFoundError,
        OverloadedError,
        TimedOutError,
    )
    from clients.events import Alternative, Change, Done, Event, Prediction, Start, Step
    from clients.replay import Replay

_MODULES = {
    "APIError": "errors",
    "Alternative": "events",
    "AsyncLLaDAClient": "asynchronous",
    "AuthenticationError": "errors",
    "BadRequestError": "errors",
    "Change": "events",
    "Completion": "calls",
    "Done": "events",
    "Event": "events",
    "Fork": "calls",
    "Gap": "calls",
    "LLaDAClient": "client",
    "LLaDAError": "errors",
    "Model": "calls",
    "NoServerError": "errors",
    "NotFoundError": "errors",
    "OverloadedError": "errors",
    "Prediction": "events",
    "Replay": "replay",
    "Score": "calls",
    "Start": "events",
    "Step": "events",
    "TimedOutError": "errors",
}

__all__ = [
    "APIError",
    "Alternative",
    "AsyncLLaDAClient",
    "AuthenticationError",
    "BadRequestError",
    "Change",
    "Completion",
    "Done",
    "Event",
    "Fork",
    "Gap",
    "LLaDAClient",
    "LLaDAError",
    "Model",
    "NoServerError",
    "NotFoundError",
    "OverloadedError",
    "Prediction",
    "Replay",
    "Score",
    "Start",
    "Step",
    "TimedOutError",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
