"""Chat formats given as Jinja templates, as transformers and vLLM read them.

The template never sees the messages' texts: it is rendered with placeholders, which the texts then replace. A text
therefore cannot open a turn, and is encoded as plain text, as in the built-in format.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llada_core.errors import InvalidParameterError


class Turn(Protocol):
    """A message."""

    @property
    def role(self) -> str: ...

    @property
    def content(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a rendered conversation.

    Attributes:
        is_content: the piece is a message's text, in which no token is special.
    """

    text: str
    is_content: bool


# Two private-use characters around the message's index; the spaces show whether the template trims.
_MARK = re.compile("( ?)\ue000([0-9]+)\ue001( ?)")


class ChatTemplate:
    """A compiled template.

    Attributes:
        source: its text.
    """

    def __init__(self, source: str) -> None:
        """Compile a template.

        Raises:
            ValueError: the source is not a Jinja template; names the line.
        """
        self.source = source
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise ValueError(f"chat template, line {error.lineno}: {error.message}") from None

    def render(
        self,
        messages: Sequence[Turn],
        *,
        bos_token: str,
        eos_token: str,
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> list[Part]:
        """Render a conversation and split it at the boundaries of the messages' texts.

        Args:
            continue_final_message: end with the last message's text.

        Raises:
            InvalidParameterError: the template refuses the messages, or leaves out the one to be continued.
        """
        marked = [{"role": message.role, "content": f" \ue000{index}\ue001 "} for index, message in enumerate(messages)]
        try:
            rendered = self._template.render(
                messages=marked,
                bos_token=bos_token,
                eos_token=eos_token,
                add_generation_prompt=add_generation_prompt,
            )
        except TemplateError as error:
            raise InvalidParameterError(f"messages: the chat template refuses them: {error}", "messages") from None
        parts = []
        end = 0
        for mark in _MARK.finditer(rendered):
            text = messages[int(mark[2])].content
            text = text if mark[1] else text.lstrip()
            text = text if mark[3] else text.rstrip()
            parts += [Part(rendered[end : mark.start()], False), Part(text, True)]
            end = mark.end()
            if continue_final_message and int(mark[2]) == len(messages) - 1:
                return parts
        if continue_final_message:
            raise InvalidParameterError("messages: the chat template leaves out the last one", "messages")
        return [*parts, Part(rendered[end:], False)]


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)
