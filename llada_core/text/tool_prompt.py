"""The plain form of tools, for chat formats that have no place for them.

LLaDA's own format knows three roles. The definitions of the functions become text of the system's turn, a call becomes
the assistant's turn, and a result becomes a turn of the user. The form is short and regular, so that a small model can
be trained on it, and constraints on calls spell them the same way: as `json.dumps` writes them, one call a line.

    system      You can call functions. A call is {"name": ..., "arguments": {...}} and nothing else.
                calculator(expression: string): Evaluate an arithmetic expression.
    user        What is 12 * 7?
    assistant   {"name": "calculator", "arguments": {"expression": "12 * 7"}}
    user        Result: 84
    assistant   12 * 7 is 84.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_INTRODUCTION = 'You can call functions. A call is {"name": ..., "arguments": {...}} and nothing else.'
_SIMPLE_TYPES = frozenset({"string", "number", "integer", "boolean", "null"})


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        parameters: the JSON schema of the arguments, an object.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function.

    Attributes:
        id: the name under which a result refers to it.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True, slots=True)
class CallForm:
    """What stands around the JSON of each call in an answer."""

    opening: str = ""
    closing: str = ""


PLAIN_CALLS = CallForm()
TAGGED_CALLS = CallForm("<tool_call>\n", "\n</tool_call>")
"""The form of Hermes, Qwen and others."""


def tools_text(tools: Sequence[Tool]) -> str:
    """Describe functions for the system's turn, one a line, with the descriptions of parameters below."""
    return "\n".join([_INTRODUCTION, *(line for tool in tools for line in _lines(tool))])


def calls_text(calls: Sequence[ToolCall]) -> str:
    """Write calls as the assistant's turn, one a line."""
    return "\n".join(_dumped({"name": call.name, "arguments": call.arguments}) for call in calls)


def result_text(result: str) -> str:
    """Write the result of a call as a turn of the user."""
    return f"Result: {result}"


def _lines(tool: Tool) -> list[str]:
    properties = tool.parameters.get("properties", {})
    required = tool.parameters.get("required", ())
    is_simple = isinstance(properties, Mapping) and isinstance(required, Sequence) and "$ref" not in tool.parameters
    types = {name: _type_of(schema) for name, schema in properties.items()} if is_simple else {}
    if not is_simple or None in types.values():
        # Nested schemas have no short form.
        return [f"{tool.name} {_dumped(tool.parameters)}{_after_colon(tool.description)}"]
    signature = ", ".join(f"{name}{'' if name in required else '?'}: {type_}" for name, type_ in types.items())
    return [
        f"{tool.name}({signature}){_after_colon(tool.description)}",
        *(f"  {name}: {schema['description']}" for name, schema in properties.items() if schema.get("description")),
    ]


def _type_of(schema: Any) -> str | None:
    """The type as people write it: `string`, `1 | 2`, `[number]`; None if it is not as simple as that."""
    if not isinstance(schema, Mapping):
        return None
    if isinstance(schema.get("enum"), list):
        return " | ".join(map(_dumped, schema["enum"]))
    type_ = schema.get("type")
    if type_ == "array" and (item := _type_of(schema.get("items", {}))):
        return f"[{item}]"
    return type_ if isinstance(type_, str) and type_ in _SIMPLE_TYPES else None


def _after_colon(description: str) -> str:
    return f": {description}" if description else ""


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
