"""`llada`: ask a `llada-server` from the terminal."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from clients.terminal.options import CONNECTION_OPTIONS, asks

if TYPE_CHECKING:  # importing these takes longer than --help may
    from clients.terminal.connecting import Ask
    from clients.terminal.playback import Speed
    from clients.terminal.recording import Recording

# Wrong usage is 2, by typer.
_FAILED, _NO_SERVER, _INTERRUPTED = 1, 3, 130
_SLOWEST, _FASTEST = 0.25, 4.0
_FRACTIONS = {"¼": "0.25", "½": "0.5", "1/4": "0.25", "1/2": "0.5"}

Prompt = Annotated[str | None, typer.Argument(help="Text; - or nothing reads it from standard input.")]
Raw = Annotated[bool, typer.Option("--raw", help="Continue the text instead of answering it as a chat.")]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="How the model should answer.")]
SpeedOption = Annotated[
    str,
    typer.Option(
        "--speed", metavar="X", help="From 1/4 to 4, or live: as it comes. 1 shows a short answer in three seconds."
    ),
]
Save = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Save the run as .json, .html, .cast or .gif; may be repeated."),
]

app = typer.Typer(
    name="llada",
    help="Watch LLaDA denoise, chat with it, let it complete texts and fill gaps; a llada-server does the work.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import PackageNotFoundError, version

        for name in ("llada", "llada-client"):
            try:
                typer.echo(f"llada {version(name)}")
                break
            except PackageNotFoundError:
                continue
        raise typer.Exit()


@app.callback()
def common(
    ctx: typer.Context,
    server: Annotated[str | None, typer.Option(metavar="URL", help=CONNECTION_OPTIONS["server"])] = None,
    api_key: Annotated[str | None, typer.Option(metavar="KEY", help=CONNECTION_OPTIONS["api_key"])] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options before the command's name; both may also stand behind it."""
    ctx.obj = {"server": server, "api_key": api_key}


@app.command()
@asks()
def watch(
    ask: "Ask",
    prompt: Prompt = None,
    raw: Raw = False,
    system: System = None,
    speed: SpeedOption = "1",
    compare: Annotated[
        str | None, typer.Option(metavar="PRESET", help="Run it a second time with this preset, and show both.")
    ] = None,
    save: Save = None,
) -> None:
    """Show the canvas of an answer while it denoises. Without a terminal, print the final text only."""
    from clients.terminal.requests import comparison, denoising
    from clients.terminal.saving import check_targets

    check_targets(save or [])
    pace = _speed(speed)
    request = denoising(_text(prompt), ask.fields, is_raw=raw, system=system)
    _show(ask, comparison(request, compare), pace, save or [])


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="A .json file that `llada watch --save` or the page has written.")],
    speed: SpeedOption = "1",
    save: Save = None,
) -> None:
    """Show a saved run again; no server is needed."""
    from clients.terminal.recording import DamagedFileError, read_json
    from clients.terminal.saving import check_targets

    check_targets(save or [])
    pace = _speed(speed)
    with _plain_errors():
        try:
            recordings = read_json(file)
        except DamagedFileError as error:
            _fail(f"error: {error}", _FAILED)
        if sys.stdout.isatty():
            from clients.terminal.printing import console
            from clients.terminal.viewer import play

            play(recordings, console(), pace)
        else:
            _print_texts(recordings)
        _save(save or [], recordings, pace)


@app.command()
@asks()
def chat(ask: "Ask", system: System = None) -> None:
    """Talk with the model; /help lists the commands of a conversation."""
    with _plain_errors():
        from clients.terminal.chat import Conversation, converse

        with ask.client() as client:
            is_answered = converse(Conversation(client, ask.fields, system))
        # Who types has seen the errors; a program sees only the status.
        if not is_answered and not sys.stdin.isatty():
            raise typer.Exit(_FAILED)


@app.command()
@asks()
def complete(
    ask: "Ask",
    prompt: Prompt = None,
    as_chat: Annotated[bool, typer.Option("--chat", help="Answer the text instead of continuing it.")] = False,
    system: System = None,
) -> None:
    """Continue a text: print what follows it, and nothing else."""
    if system is not None and not as_chat:
        raise typer.BadParameter("only a chat has a system message: add --chat", param_hint="--system")
    text = _text(prompt)
    with _plain_errors():
        from contextlib import closing

        from clients.terminal.printing import printable
        from clients.terminal.requests import turns

        with ask.client() as client:
            stream = (
                client.stream_chat(turns(text, system), **ask.fields)
                if as_chat
                else client.stream_complete(text, **ask.fields)
            )
            with closing(stream):
                for piece in stream:
                    sys.stdout.write(printable(piece))
                    sys.stdout.flush()
        if sys.stdout.isatty():
            sys.stdout.write("\n")  # a file or a pipe gets the text exactly as it is


@app.command()
@asks(without=["max_tokens"])
def fill(
    ask: "Ask",
    text: Annotated[
        str | None, typer.Argument(help="Text with gaps; - or nothing reads it from standard input.")
    ] = None,
    gap: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of a gap that is written ___.")] = 4,
    watch: Annotated[bool, typer.Option("--watch", help="Show the canvas while it denoises.")] = False,
    speed: SpeedOption = "1",
    save: Save = None,
) -> None:
    """Fill the gaps of a text: ___ is a gap of --gap tokens, [[5]] one of 5.

    Tokens begin with the space before a word, so one space before a gap is taken away: the gap's first token brings it.
    """
    from clients.terminal.filling import NoGapError, canvas_of
    from clients.terminal.recording import Recording
    from clients.terminal.requests import body
    from clients.terminal.saving import check_targets

    check_targets(save or [])
    pace = _speed(speed)
    try:
        canvas = canvas_of(_text(text), gap)
    except NoGapError as error:
        raise typer.BadParameter(str(error)) from error
    _show(ask, [Recording(body(ask.fields, canvas=canvas))], pace, save or [], is_watched=watch)


@app.command()
@asks(with_fields=False)
def models(ask: "Ask", as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False) -> None:
    """List what the server serves."""
    with _plain_errors():
        import json
        from dataclasses import asdict

        with ask.client() as client:
            served = [asdict(model) for model in client.models()]
        if as_json:
            typer.echo(json.dumps(served, indent=2))
            return
        from clients.terminal.printing import console
        from clients.terminal.tables import table_of_models

        console().print(table_of_models(served))


def main() -> None:
    """Run the command line; errors are printed on one line, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # as after `>&-`
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # without UTF-8: question marks
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        typer.echo(f"llada: {error.strerror or error}", err=True)
        os._exit(_FAILED)  # the interpreter would try to write what could not be written once more


def _show(
    ask: "Ask", recordings: Sequence["Recording"], speed: "Speed", save: Sequence[Path], *, is_watched: bool = True
) -> None:
    """Generate; on a terminal show the canvas, elsewhere print the text; then save."""
    with _plain_errors():
        from clients.terminal.printing import console
        from clients.terminal.viewer import generate

        is_watched = is_watched and sys.stdout.isatty()
        generate(ask, recordings, console() if is_watched else None, speed)
        if not is_watched:
            _print_texts(recordings)
        _save(save, recordings, speed)


def _save(paths: Sequence[Path], recordings: Sequence["Recording"], speed: "Speed") -> None:
    if not paths:
        return
    from clients.terminal.printing import console
    from clients.terminal.saving import Film, save

    width = console().width if sys.stdout.isatty() else 80
    try:
        save(paths, Film(recordings, speed, width))
    except OSError as error:
        _fail(f"error: {error.filename or paths[0]}: {error.strerror or error}", _FAILED)


def _print_texts(recordings: Sequence["Recording"]) -> None:
    """Print the final text; several are told apart by their names."""
    from clients.terminal.printing import printable

    for recording in recordings:
        assert recording.replay.done is not None
        text = printable(recording.replay.done.text)
        typer.echo(f"{recording.name}:\n{text}" if len(recordings) > 1 else text)


def _text(prompt: str | None) -> str:
    """The prompt, from standard input if need be; one line end at its end is not part of it.

    Raises:
        typer.BadParameter: there is none, or it is no text.
    """
    if prompt not in (None, "-"):
        text = str(prompt)
    elif prompt is None and sys.stdin.isatty():
        raise typer.BadParameter("give a text, or pipe one in")
    else:
        try:
            text = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise typer.BadParameter(f"standard input is not UTF-8: {error.reason} at byte {error.start}") from error
    if not text:
        raise typer.BadParameter("the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise typer.BadParameter("the text is not UTF-8") from error
    return text


def _speed(text: str) -> "Speed":
    if text == "live":
        return None
    try:
        speed = float(_FRACTIONS.get(text, text).removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not _SLOWEST <= speed <= _FASTEST:
        raise typer.BadParameter(f"{text!r} is neither live nor from 1/4 to 4", param_hint="--speed")
    return speed


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what can go wrong into a line on stderr and an exit code; typer itself sees to wrong usage."""
    from clients.errors import LLaDAError, NoServerError

    try:
        yield
    except NoServerError as error:
        _fail(_no_server(error), _NO_SERVER)
    except LLaDAError as error:
        _fail(f"error: {' '.join(str(error).split())}", _FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _no_server(error: Exception) -> str:
    reason = str(error).partition(";")[0]
    return f"llada: {reason}; start one with `make serve` in a checkout or with `llada-server`."


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


if __name__ == "__main__":
    main()
