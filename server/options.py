"""The command line of `llada-server`, made from the fields of `Settings`.

argparse only reads the words; pydantic checks the values, so that an option and its environment variable obey the same
rules, and an error names whichever was used.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from server.settings import Settings

# Title → option → what its value is called; choices are listed instead.
GROUPS: Mapping[str, Mapping[str, str]] = {
    "model": {
        "model": "MODEL",
        "revision": "REVISION",
        "adapter": "FOLDER",
        "served_model_name": "NAME",
        "chat_template": "FILE",
        "reasoning_parser": "",
        "max_model_len": "TOKENS",
    },
    "address": {"host": "HOST", "port": "PORT", "root_path": "PATH", "replica_name": "NAME"},
    "access": {"api_key": "KEY", "cors_origin": "ORIGIN", "allowed_host": "NAME"},
    "computation": {"device": "DEVICE", "dtype": "", "quantization": "", "threads": "N", "model_threads": "N"},
    "limits": {
        "max_batch_size": "REQUESTS",
        "max_batch_tokens": "TOKENS",
        "max_queue": "REQUESTS",
        "kv_cache_memory": "SIZE",
        "prefix_cache_memory": "SIZE",
        "request_timeout": "SECONDS",
        "step_timeout": "SECONDS",
        "shutdown_grace": "SECONDS",
        "client_timeout": "SECONDS",
        "keep_alive": "SECONDS",
        "max_connections": "CONNECTIONS",
    },
    "log": {"log_level": "", "log_format": ""},
}

_EPILOG = """\
Every option can also be set by an environment variable: LLADA_ and its name, as LLADA_MAX_QUEUE=64. Options take
precedence. The entries of a list are separated by commas: LLADA_API_KEY=one,two. What is set by neither is read from
the files of the folder that LLADA_SECRETS_DIR names, such as llada_api_key.
"""


def read_settings(words: Sequence[str]) -> Settings:
    """The settings that command line, environment and secret files ask for; ends the process on --help and an error."""
    given = _given(words)
    _warn_of_unknown_variables()
    secrets = os.environ.get("LLADA_SECRETS_DIR")
    try:
        if secrets:
            # Of a missing folder pydantic only warns, and the server would be open to all.
            next(Path(secrets).iterdir(), None)
        return Settings(**given | {"_secrets_dir": secrets or None})
    except OSError as error:
        print(f"llada-server: LLADA_SECRETS_DIR: {error.filename}: {error.strerror}", file=sys.stderr)
    except ValidationError as error:
        for problem in error.errors():
            field = str(problem["loc"][0])
            # Error messages end up in logs, where a key has no place.
            value = "" if field == "api_key" else f" is {problem['input']!r}"
            print(f"llada-server: {_source(field, given)}{value}: {_rule(problem)}", file=sys.stderr)
    raise SystemExit(2)


def option(field: str) -> str:
    """The option of a field of `Settings`."""
    return "--" + field.replace("_", "-")


def variable(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    return f"LLADA_{field.upper()}"


def _source(field: str, given: Mapping[str, Any]) -> str:
    """What has set a field, as pydantic ranks them: the option, the variable or the secret file."""
    if field in given:
        return option(field)
    is_variable = variable(field) in map(str.upper, os.environ)
    return variable(field) if is_variable else f"the secret file {variable(field).lower()}"


def _given(words: Sequence[str]) -> dict[str, Any]:
    parser = _parser()
    # `_` is read as `-`, as `llada-train` does.
    known, unknown = parser.parse_known_args([_kebab(word) for word in words])
    if unknown:
        names = [option(field) for field in Settings.model_fields]
        nearest = get_close_matches(unknown[0].partition("=")[0], names, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else "; --help lists all options"
        what = "unknown option" if unknown[0].startswith("-") else "unexpected argument"
        print(f"llada-server: {what} {unknown[0]}{hint}", file=sys.stderr)
        raise SystemExit(2)
    return {field: value for field, value in vars(known).items() if value is not None}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llada-server",
        description=Settings.__doc__,
        epilog=_EPILOG,
        usage="llada-server [OPTION VALUE] …",
        add_help=False,
        allow_abbrev=False,
    )
    for title, fields in GROUPS.items():
        group = parser.add_argument_group(title)
        for field, metavar in fields.items():
            info = Settings.model_fields[field]
            is_list = get_origin(info.annotation) is list
            group.add_argument(
                option(field),
                metavar=metavar or f"{{{','.join(get_args(info.annotation))}}}",
                action="append" if is_list else "store",
                help=_help(info),
            )
    others = parser.add_argument_group("information")
    others.add_argument("-h", "--help", action="help", help="show this text")
    others.add_argument(
        "--version", action="version", version=f"llada-server {version('llada')}", help="show the version"
    )
    return parser


def _help(info: FieldInfo) -> str:
    """A field's description, with its default unless the description says it in words."""
    assert info.description is not None
    text = info.description.replace("%", "%%")
    return text if info.default in (None, "", []) else f"{text} (default: {info.default})"


def _kebab(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if name.startswith("--") else word


def _rule(problem: Mapping[str, Any]) -> str:
    """The rule that a value breaks, without pydantic's marks."""
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "it must")


def _warn_of_unknown_variables() -> None:
    """Warn of a variable that looks like a misspelt option; others with this prefix belong to other programs."""
    names = {variable(field) for field in Settings.model_fields}
    for name in os.environ:
        is_known = not name.startswith("LLADA_") or name.upper() in names
        if not is_known and (nearest := get_close_matches(name.upper(), names, n=1, cutoff=0.85)):
            print(f"llada-server: warning: {name} is no option; did you mean {nearest[0]}?", file=sys.stderr)
