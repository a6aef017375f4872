"""Reads the calls out of an answer's text while it grows, and writes them as OpenAI's deltas and message."""

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from llada_core.text.tool_prompt import CallForm

_BEGINNING = re.compile(r'\{"name": "([^"]+)", "arguments": ')


class CallReader:
    """Follows one answer, which its constraint keeps to the form that is read here.

    JSON on one line holds no line break, so a call's JSON ends where its line does.
    """

    def __init__(self, form: CallForm, *, may_be_text: bool) -> None:
        """
        Args:
            may_be_text: the answer may be text without a call or, where calls have an opening, before the first.
        """
        self._form = form
        self._rest = ""
        self._read: Callable[[], Iterator[dict[str, Any]]] = self._text if may_be_text else self._beginning
        self._content = ""
        self._calls: list[dict[str, Any]] = []

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def push(self, text: str, *, is_last: bool) -> list[dict[str, Any]]:
        """Take in the next text; returns the deltas of what it makes certain."""
        self._rest += text
        deltas: list[dict[str, Any]] = []
        while True:
            reading = self._read
            deltas += reading()
            if self._read == reading:
                break
        if is_last and self._read == self._text and self._rest:
            deltas.append(self._content_delta(len(self._rest)))
        return [delta for delta in deltas if delta]

    def message(self) -> dict[str, Any]:
        """The fields of the finished message."""
        if not self._calls:
            return {"content": self._content}
        return {"content": self._content or None, "tool_calls": self._calls}

    def _text(self) -> Iterator[dict[str, Any]]:
        opening = self._form.opening
        if not opening:
            if self._rest.startswith("{") and not self._content:
                self._read = self._beginning
            elif self._rest:
                yield self._content_delta(len(self._rest))
            return
        place = self._rest.find(opening.strip())
        if place >= 0:
            yield self._content_delta(place)
            self._read = self._beginning
            return
        # What may be the start of an opening waits.
        held = next(n for n in range(len(opening.strip()), -1, -1) if self._rest.endswith(opening[:n]))
        yield self._content_delta(len(self._rest) - held)

    def _beginning(self) -> Iterator[dict[str, Any]]:
        found = _BEGINNING.search(self._rest)
        if found is None:
            return
        self._rest = self._rest[found.end() :]
        function = {"name": found[1], "arguments": ""}
        call = {"id": f"call_{secrets.token_hex(12)}", "type": "function"}
        self._calls.append({**call, "function": function})
        self._read = self._arguments
        yield {"tool_calls": [{"index": len(self._calls) - 1, **call, "function": dict(function)}]}

    def _arguments(self) -> Iterator[dict[str, Any]]:
        line, end, rest = self._rest.partition("\n")
        if end:
            self._read = self._beginning
        # The last character so far may be the brace that closes the call around its arguments.
        arguments, self._rest = line[:-1], (rest if end else line[-1:])
        self._calls[-1]["function"]["arguments"] += arguments
        if arguments:
            yield {"tool_calls": [{"index": len(self._calls) - 1, "function": {"arguments": arguments}}]}

    def _content_delta(self, length: int) -> dict[str, Any]:
        content, self._rest = self._rest[:length], self._rest[length:]
        self._content += content
        return {"content": content} if content else {}
