"""What every generated answer carries, whatever its shape: an id, the time, the model."""

import secrets
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """Shared by all objects and events of one answer; `created` is in seconds since 1970."""

    id: str
    created: int
    model: str

    @classmethod
    def new(cls, prefix: str, model: str) -> "Envelope":
        """An envelope with a new random id."""
        return cls(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model)
