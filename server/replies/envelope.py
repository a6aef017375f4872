"""The fields that every generated answer has, whatever its shape: an id, a time, the model."""

import secrets
import time
from dataclasses import dataclass
from importlib.metadata import version

# Read once: it takes a look at every installed package's name, and every chunk of a stream has it.
_VERSION = version("llada")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The fields shared by all objects and events of an answer; `created` is in seconds since 1970."""

    id: str
    created: int
    model: str

    @property
    def fingerprint(self) -> str:
        """The code and the model that made the answer: the same seed gives the same tokens while it stays the same."""
        return f"llada-{_VERSION}-{self.model}"

    @classmethod
    def new(cls, prefix: str, model: str) -> "Envelope":
        """An envelope with a new random id that begins with `prefix`."""
        return cls(f"{prefix}{secrets.token_hex(12)}", int(time.time()), model)
