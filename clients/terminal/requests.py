"""The bodies of requests to `/v1/denoise`."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from clients.calls import Gap, denoise_body
from clients.terminal.recording import Recording


def turns(text: str, system: str | None) -> list[dict[str, str]]:
    """A chat of one question."""
    instructions = [] if system is None else [{"role": "system", "content": system}]
    return [*instructions, {"role": "user", "content": text}]


def body(
    fields: Mapping[str, Any],
    *,
    prompt: str | None = None,
    messages: Sequence[Mapping[str, str]] | None = None,
    canvas: Sequence[str | Gap] | None = None,
) -> dict[str, Any]:
    """The body for exactly one of prompt, messages and canvas."""
    return denoise_body(prompt, messages, canvas, None, fields)


def denoising(text: str, fields: Mapping[str, Any], *, is_raw: bool, system: str | None) -> dict[str, Any]:
    """The body that answers a text, or continues it."""
    return body(fields, prompt=text) if is_raw else body(fields, messages=turns(text, system))


def comparison(request: Mapping[str, Any], preset: str | None) -> list[Recording]:
    """The runs to watch: the request, and with a preset the same once more with that, from the same seed."""
    if preset is None:
        return [Recording(request)]
    request = {"seed": random.randrange(2**31), **request}
    first = str(request.get("preset", "exact"))
    return [Recording(request, name=first), Recording({**request, "preset": preset}, name=preset)]
