"""The log: text or JSON, one line for each record, with the time and its zone."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from server.settings import Settings

# Visible ASCII without what could end a word.
_PLAIN = re.compile(r"[!#-<>-\[\]-~]+")


@dataclass(frozen=True, slots=True)
class Fields:
    """A message with named values: members of a JSON record, or `name=value` after the message of a line of text."""

    message: str
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join([self.message, *(f"{name}={_as_word(value)}" for name, value in self.values.items())])


class TextFormatter(logging.Formatter):
    """One line for each record, and the traceback of an exception below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _zoned(record)


class JSONFormatter(logging.Formatter):
    """One JSON object per record."""

    def format(self, record: logging.LogRecord) -> str:
        msg: object = record.msg
        fields = {
            "time": _zoned(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": msg.message if isinstance(msg, Fields) else record.getMessage(),
            **(msg.values if isinstance(msg, Fields) else {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Send all logs to the standard error stream, as `settings` say."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    if settings.log_level == "info":
        # What uvicorn says of its own start and end is said better here.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _zoned(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _as_word(value: object) -> str:
    """The value as one word, in quotes if need be: a client that chooses one must not be able to forge another."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
