"""The options that several commands share: where the server is, and the fields of a request by name."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

# Fields that a command writes itself, or whose answer it could not read.
_RESERVED = {"prompt", "messages", "canvas", "stream", "self", "n", "diffusing", "stream_options"}

FIELD_OPTIONS: Mapping[str, tuple[type, str]] = {
    "max_tokens": (int, "Length of the answer in tokens."),
    "steps": (int, "Denoising steps."),
    "block_length": (int, "Positions of a block; blocks are filled left to right."),
    "preset": (str, "exact, balanced or fast."),
    "method": (str, "semi_autoregressive_padding, semi_autoregressive_origin or fixed_length."),
    "temperature": (float, "0 is greedy."),
    "cfg_scale": (float, "Classifier-free guidance."),
    "seed": (int, "The same seed gives the same tokens."),
}
CONNECTION_OPTIONS: Mapping[str, str] = {
    "server": "URL of the server. [LLADA_SERVER, or http://127.0.0.1:8000]",
    "api_key": "Key of the server. [LLADA_API_KEY]",
}
_METAVARS = {int: "N", float: "X", str: "NAME"}


def asks(*, without: Sequence[str] = (), with_fields: bool = True) -> Callable[..., Callable[..., None]]:
    """Turn `run(ask, …)` into a command: its options, those of the server and those of the request's fields.

    Args:
        without: fields that this command has no use for.
    """

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        names = [name for name in FIELD_OPTIONS if with_fields and name not in without]

        @wraps(run)
        def command(ctx: typer.Context, **values: Any) -> None:
            from clients.terminal.connecting import Ask

            connection = {name: values.pop(name) or (ctx.obj or {}).get(name) for name in CONNECTION_OPTIONS}
            given = {name: values.pop(name) for name in names}
            fields = {name: value for name, value in given.items() if value is not None}
            fields |= parse_fields(values.pop("set_", None) or [])
            run(Ask(**connection, fields=checked(fields)), **values)

        own = list(signature(run).parameters.values())[1:]
        keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own]
        options = [_field_option(name) for name in names]
        if with_fields:
            options.append(
                _option("set_", list[str] | None, "Any other field of the server, as JSON.", "--set", "NAME=VALUE")
            )
        options += [_connection_option(name) for name in CONNECTION_OPTIONS]
        context = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *keywords, *options]
        command.__signature__ = signature(run).replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate


def parse_fields(assignments: Sequence[str]) -> dict[str, Any]:
    """Fields from `name=value`; a value that is no JSON is a text.

    Raises:
        typer.BadParameter: there is no name, or the field is not the user's to set.
    """
    return dict(_assignment(text) for text in assignments)


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not sign or not name:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--set")
    if name in _RESERVED:
        raise typer.BadParameter(f"{name} is not a field to set here", param_hint="--set")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, if they can be sent.

    Raises:
        typer.BadParameter: JSON has no such value.
    """
    for name, value in fields.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            raise typer.BadParameter(f"{value!r} cannot be sent", param_hint=name.replace("_", "-")) from error
    return dict(fields)


def _field_option(name: str) -> Parameter:
    kind, help_text = FIELD_OPTIONS[name]
    return _option(name, kind | None, help_text, f"--{name.replace('_', '-')}", _METAVARS[kind])


def _connection_option(name: str) -> Parameter:
    metavar = {"server": "URL", "api_key": "KEY"}[name]
    return _option(name, str | None, CONNECTION_OPTIONS[name], f"--{name.replace('_', '-')}", metavar)


def _option(name: str, kind: Any, help_text: str, declaration: str, metavar: str) -> Parameter:
    option = typer.Option(declaration, help=help_text, metavar=metavar, show_default=False)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])
