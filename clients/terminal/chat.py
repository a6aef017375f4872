"""A conversation in the terminal."""

import json
import sys
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

import typer

from clients.client import LLaDAClient
from clients.errors import LLaDAError
from clients.terminal.options import FIELD_OPTIONS, checked, parse_fields
from clients.terminal.printing import printable

_HELP = """\
/settings              the fields of every request
/settings NAME=VALUE   set one, as in /settings preset=fast; NAME= takes it away
/system TEXT           how the model should answer; /system shows it, /system off takes it away
/new                   forget the conversation
/help                  this list
/quit                  end; so does Ctrl-D
Ctrl-C                 cancel the answer"""


class Conversation:
    """What was said, and how to ask for more.

    Attributes:
        fields: the fields of every request.
        system: how the model should answer; None says nothing about it.
        turns: questions and answers so far.
    """

    def __init__(self, client: LLaDAClient, fields: Mapping[str, Any], system: str | None) -> None:
        self.fields = dict(fields)
        self.system = system
        self.turns: list[dict[str, str]] = []
        self._client = client

    def ask(self, question: str) -> None:
        """Print the answer as it comes, behind its thinking; a question without a whole answer is forgotten."""
        turns = [*self.turns, {"role": "user", "content": question}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        pieces = []
        try:
            stream = self._client.stream_chat([*system, *turns], on_thinking=_show_thinking, **self.fields)
            with closing(stream):
                for piece in stream:
                    pieces.append(piece)
                    typer.echo(printable(piece), nl=False)
        except BaseException:
            if pieces:
                typer.echo()
            raise
        typer.echo()
        self.turns = [*turns, {"role": "assistant", "content": "".join(pieces)}]

    def obey(self, line: str) -> bool:
        """Carry out a line that begins with a slash; whether the conversation goes on."""
        name, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match name:
            case "/quit" | "/exit":
                return False
            case "/help":
                typer.echo(_HELP)
            case "/new":
                self.turns = []
                typer.echo("The conversation is forgotten; settings and system message stay.")
            case "/system":
                self._set_system(rest)
            case "/settings" | "/set":
                self._set_fields(rest)
            case _:
                typer.echo(f"There is no {name}; /help lists what there is.")
        return True

    def _set_system(self, text: str) -> None:
        if text:
            self.system = None if text == "off" else text
        typer.echo("There is no system message." if self.system is None else f"system: {self.system}")

    def _set_fields(self, text: str) -> None:
        try:
            for name, value in checked(parse_fields([text] if text else [])).items():
                self.fields.pop(name, None)
                if value != "":
                    self.fields[name] = value
        except typer.BadParameter as error:
            typer.echo(f"error: {error}")
            return
        for name, value in self.fields.items():
            typer.echo(f"{name}={json.dumps(value, ensure_ascii=False)}")
        if not self.fields:
            typer.echo(f"All fields have the server's defaults. There are {', '.join(FIELD_OPTIONS)} and others.")


def _show_thinking(piece: str) -> None:
    """Print thinking dimmed; only on a terminal, since elsewhere nothing would tell it from the answer."""
    if sys.stdout.isatty():
        typer.secho(printable(piece), dim=True, nl=False)


def converse(conversation: Conversation) -> bool:
    """Read questions until the input ends; whether each of them was answered."""
    is_answered = True
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with suppress(ImportError):
            import readline  # noqa: F401  # gives `input` its editing keys and history
        typer.echo("Ask something; /help lists what else there is, Ctrl-D ends.")
    while (line := _line("› " if is_terminal else "")) is not None:
        if not line.strip():
            continue
        if line.startswith("/"):
            if not conversation.obey(line):
                break
        else:
            is_answered = _ask(conversation, line) and is_answered
    return is_answered


def _ask(conversation: Conversation, question: str) -> bool:
    try:
        question.encode()
        conversation.ask(question)
        return True
    except UnicodeEncodeError:
        typer.echo("error: the line is not UTF-8", err=True)
    except KeyboardInterrupt:
        typer.echo("Cancelled; the question is forgotten.", err=True)
    except LLaDAError as error:
        typer.echo(f"error: {error}", err=True)
    return False


def _line(prompt: str) -> str | None:
    """The next line; None at the end. Ctrl-C drops the line that is being written, as shells do."""
    while True:
        try:
            try:
                return input(prompt)
            except EOFError:
                # In here too an interrupt can come up: `input` misses one that arrives just before it waits for a key.
                if prompt:
                    typer.echo()
                return None
        except KeyboardInterrupt:
            if not prompt:
                raise
            typer.echo()
