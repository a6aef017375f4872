"""Chat formats given as Jinja templates, as transformers and vLLM read them.

The template never sees the messages' texts, nor what tools and calls say beyond plain names: it is rendered with
placeholders, which the texts then replace. A text therefore cannot open a turn, and is encoded as plain text, as in the
built-in format.

A template may come from strangers. It is rendered in a process of its own (`template_process`), which is ended when it
takes more than two seconds of a processor or 256 MB; results are kept, since a template sees little more of a
conversation than its roles.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from llada_core.errors import InvalidParameterError, shorten
from llada_core.files import read_text
from llada_core.text.thinking import CLOSING, OPENING, Beginning
from llada_core.text.tool_prompt import PLAIN_CALLS, TAGGED_CALLS, Tool, ToolCall

_MOST_FILE_BYTES = 1 << 20
_MOST_SECONDS = 2
_MOST_BYTES = 256 << 20
# A process that waits for a processor is not counted as busy.
_MOST_WALL_SECONDS = 60
# The most characters that a template may add, and how often over it may repeat the messages.
_MOST_CHARACTERS = 1 << 20
_MOST_REPEATS = 4
# Longer conversations are rendered anew each time.
_MOST_KEPT_CHARACTERS = 1 << 16


class Turn(Protocol):
    """A message."""

    @property
    def role(self) -> str: ...

    @property
    def content(self) -> str: ...

    @property
    def thinking(self) -> str: ...

    @property
    def tool_calls(self) -> Sequence[ToolCall]: ...

    @property
    def call_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a rendered conversation.

    Attributes:
        is_content: the piece is a message's text, in which no token is special.
    """

    text: str
    is_content: bool


# A text's index between private-use characters, the first of which tells whether it is within JSON; the spaces show
# whether the template trims.
_START, _JSON_START, _STOP = "\ue000", "\ue002", "\ue001"
_MARK = re.compile(f"( ?)([{_START}{_JSON_START}])([0-9]{{1,9}}){_STOP}( ?)")
# What templates compare, and no tokenizer reads as a special token.
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")


class ChatTemplate:
    """A template that was rendered once.

    Attributes:
        source: its text.
        knows_tools: it writes the definitions of tools.
        call_form: how it writes calls, as far as can be seen from its text.
        thinking: how answers begin, as far as can be seen from a conversation of one turn; None if its text does not
            know the tag that ends thinking.
    """

    def __init__(self, source: str) -> None:
        """Check a template.

        Raises:
            ValueError: the source is not a Jinja template, with the line; or it takes too much time or memory.
        """
        self.source = source
        # It may want more of a conversation than this.
        turn = {"role": "user", "content": "x"}
        settings = {"bos_token": "", "eos_token": "", "add_generation_prompt": True}
        rendered = ""
        with suppress(_RefusalError):
            rendered = self._render([turn], tools=None, **settings)
        self.thinking = _beginning(rendered) if CLOSING in source else None
        self.knows_tools = False
        self.call_form = TAGGED_CALLS if "<tool_call>" in source else PLAIN_CALLS
        with suppress(_RefusalError):
            function = _function(Tool("a_name_to_look_for", "What it does.", {"type": "object", "properties": {}}))
            self.knows_tools = "a_name_to_look_for" in self._render([turn], tools=[function], **settings)

    @classmethod
    def from_file(cls, file: Path) -> "ChatTemplate":
        """Read a template.

        Raises:
            OSError: the file cannot be read.
            ValueError: no template, or one that takes too much.
        """
        return cls(read_text(file, most_bytes=_MOST_FILE_BYTES))

    def render(
        self,
        messages: Sequence[Turn],
        tools: Sequence[Tool] = (),
        *,
        bos_token: str,
        eos_token: str,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> list[Part]:
        """Render a conversation and split it at the boundaries of its texts.

        Args:
            tools: the functions that may be called; only a template that knows tools writes them.
            continue_final_message: end with the last message's text.

        Raises:
            InvalidParameterError: the template refuses the messages, takes or writes too much for them, or leaves out
                the one to be continued.
        """
        texts = _Texts([message.content for message in messages])
        try:
            rendered = self._render(
                [texts.turn(index, message) for index, message in enumerate(messages)],
                tools=[texts.hidden(_function(tool)) for tool in tools] or None,
                bos_token=bos_token,
                eos_token=eos_token,
                add_generation_prompt=add_generation_prompt,
            )
        except _RefusalError as error:
            raise InvalidParameterError(f"messages: the chat template refuses them: {error}", "messages") from None
        except ValueError as error:
            raise InvalidParameterError(f"messages: {error}", "messages") from None
        room = _MOST_REPEATS * sum(map(len, texts.all))
        parts = []
        end = 0
        for mark in _MARK.finditer(rendered):
            index = int(mark[3])
            text = texts.all[index] if index < len(texts.all) else ""
            text = text if mark[1] else text.lstrip()
            text = text if mark[4] else text.rstrip()
            room -= len(text)
            if room < 0:
                raise InvalidParameterError("messages: the chat template repeats them too often", "messages")
            text = json.dumps(text, ensure_ascii=False)[1:-1] if mark[2] == _JSON_START else text
            parts += [Part(rendered[end : mark.start()], False), Part(text, True)]
            end = mark.end()
            if continue_final_message and index == len(messages) - 1:
                return parts
        if continue_final_message:
            raise InvalidParameterError("messages: the chat template leaves out the last one", "messages")
        return [*parts, Part(rendered[end:], False)]

    def _render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        request = json.dumps(
            {
                "source": self.source,
                "variables": {"messages": messages, **variables},
                "marks": {_START: _JSON_START},
                "most_seconds": _MOST_SECONDS,
                "most_bytes": _MOST_BYTES,
            }
        )
        is_kept = len(request) - len(self.source) <= _MOST_KEPT_CHARACTERS
        return _rendered(request) if is_kept else _rendered.__wrapped__(request)


class _Texts:
    """The texts that placeholders stand for; those of the messages are first.

    Attributes:
        all: by the number in the placeholder.
    """

    def __init__(self, contents: Sequence[str]) -> None:
        self.all = list(contents)

    def turn(self, index: int, message: Turn) -> dict[str, Any]:
        """A message as a template reads it."""
        # Templates ask whether a turn says anything beside its calls.
        says_nothing = message.tool_calls and not message.content
        turn: dict[str, Any] = {"role": message.role, "content": "" if says_nothing else _mark(index)}
        if message.thinking:
            turn["reasoning_content"] = self._marked(message.thinking)
        if message.tool_calls:
            turn["tool_calls"] = [self.hidden(_call(call)) for call in message.tool_calls]
        if message.call_id:
            turn["tool_call_id"] = self.hidden(message.call_id)
        return turn

    def hidden(self, value: Any) -> Any:
        """A value of JSON with placeholders for all strings but plain names."""
        match value:
            case Mapping():
                return {self.hidden(name): self.hidden(item) for name, item in value.items()}
            case list():
                return [self.hidden(item) for item in value]
            case str() if not _NAME.fullmatch(value):
                return self._marked(value)
        return value

    def _marked(self, text: str) -> str:
        self.all.append(text)
        return _mark(len(self.all) - 1)


def _beginning(rendered: str) -> Beginning:
    """How an answer begins after a rendered conversation."""
    end = rendered.rstrip()
    return "open" if end.endswith(OPENING) else "closed" if end.endswith(CLOSING) else "free"


def _mark(index: int) -> str:
    return f" {_START}{index}{_STOP} "


def _function(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


class _RefusalError(Exception):
    """A template raised an error; the message is its own."""


@lru_cache(maxsize=64)
def _rendered(request: str) -> str:
    """Render in a process of its own.

    Raises:
        _RefusalError: the template raised an error.
        ValueError: it is no template, or takes or writes too much.
    """
    # -P: the script's folder is no place to import from.
    command = [sys.executable, "-P", str(Path(__file__).with_name("template_process.py"))]
    try:
        process = subprocess.run(
            command,
            input=request,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            timeout=_MOST_WALL_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError:  # killed by a limit, or late
        raise ValueError(f"chat template: takes more than {_MOST_SECONDS} s or {_MOST_BYTES >> 20} MB") from None
    answer = json.loads(process.stdout)
    if "line" in answer:
        raise ValueError(f"chat template, line {answer['line']}: {shorten(answer['error'])}")
    if "error" in answer:
        raise _RefusalError(shorten(answer["error"]))
    if len(answer["text"]) > _MOST_CHARACTERS:
        raise ValueError(f"chat template: writes more than {_MOST_CHARACTERS:,} characters")
    text: str = answer["text"]
    return text
