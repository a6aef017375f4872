"""Renders one chat template in a process of its own, whose time and memory the system limits.

`chat_template` runs it as a script: it reads a request as JSON from its standard input and writes the answer as JSON.
A template is a program, and within one process nothing stops `{{ "x" * 10**10 }}`, a string that is doubled again and
again, or loops in loops, some of which run while the template is compiled. Jinja's sandbox is against everything else.
"""

import json
import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment


def main() -> None:
    """Answer `{"text": …}`; `{"error": …}` if the template refuses, with its `line` if it is none."""
    request = json.load(sys.stdin)
    _limit(request["most_seconds"], request["most_bytes"])
    try:
        answer: dict[str, Any] = {"text": _render(request["source"], request["variables"], request["marks"])}
    except TemplateSyntaxError as error:
        answer = {"error": error.message, "line": error.lineno}
    except TemplateError as error:
        answer = {"error": str(error)}
    except MemoryError:
        sys.exit(1)
    except Exception as error:  # `{{ 1 / 0 }}`
        answer = {"error": f"{type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


def _limit(most_seconds: int, most_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (most_seconds, most_seconds))
    with suppress(ValueError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def _render(source: str, variables: dict[str, Any], marks: Mapping[str, str]) -> str:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=_Absent, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = partial(_to_json, marks)
    return environment.from_string(source).render(variables)


class _Absent(StrictUndefined):
    """What is not there can be asked for, as in `if message.tool_calls`, but not written."""

    __bool__ = Undefined.__bool__  # type: ignore[assignment]
    __eq__ = Undefined.__eq__  # type: ignore[assignment]
    __ne__ = Undefined.__ne__  # type: ignore[assignment]
    __hash__ = Undefined.__hash__  # type: ignore[assignment]


def _to_json(
    marks: Mapping[str, str],
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does, not escaped for HTML.

    Args:
        marks: what begins the placeholder of a text → what begins it within JSON.
        ensure_ascii: has no effect: placeholders are not ASCII.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    for plain, within_json in marks.items():
        text = text.replace(plain, within_json)
    return text


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


if __name__ == "__main__":
    main()
