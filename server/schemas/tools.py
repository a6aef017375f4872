"""Tools: functions that a chat's answer may call, the calls in its history, and the form of an answer that calls."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, WithJsonSchema, model_validator

from llada_core.sampling.constraints.json_schema import schema_pattern
from llada_core.sampling.constraints.json_text import either
from llada_core.text.tool_prompt import CallForm, Tool, ToolCall
from server.http.api_error import bad_request, shortened
from server.schemas.base import Body, List, Text, kind
from server.schemas.structured import AnswerForm

MOST_TOOLS = 128
MOST_CHARACTERS = 65_536
"""The most characters of all tools together, as JSON."""
MOST_CALLS = 4
"""The most calls of one answer, with `parallel_tool_calls`."""


def _name(text: str) -> str:
    if not re.fullmatch("[a-zA-Z0-9_-]{1,64}", text):
        raise ValueError("have 1 to 64 letters, digits, _ or -")
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"})]


class FunctionDefinition(Body):
    """A function that the model may call."""

    name: Name
    description: Text | None = None
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments; absent: there are none")
    strict: bool = Field(False, description="without effect: arguments always satisfy their schema")


class ToolDefinition(Body):
    """OpenAI's tool; only functions are supported."""

    type: Literal["function"]
    function: FunctionDefinition

    def as_tool(self) -> Tool:
        """The tool for the chat template."""
        function = self.function
        return Tool(function.name, function.description or "", function.parameters or _NO_PARAMETERS)


_NO_PARAMETERS = {"type": "object", "properties": {}}


class FunctionName(Body):
    """The name of a function to be called."""

    name: Text


class NamedTool(Body):
    """The function that the answer calls."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<text>")] | Annotated[NamedTool, Tag("<function>")],
    kind("<text>", "<function>"),
]


class CalledFunction(Body):
    """A function and its arguments as JSON."""

    name: Name
    arguments: Text = Field(description="a JSON object")
    parsed_arguments: Any = Field(None, description="openai's client adds it to an answer; has no effect")

    @model_validator(mode="after")
    def _arguments_are_an_object(self) -> "CalledFunction":
        self.parsed()
        return self

    def parsed(self) -> dict[str, Any]:
        """The arguments; models that take none often send an empty text."""
        try:
            arguments = json.loads(self.arguments or "{}")
            json.dumps(arguments, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            raise ValueError(f"have arguments that are a JSON object; they are {shortened(self.arguments)}")
        return arguments


class CallInHistory(Body):
    """A call of an earlier answer."""

    id: Text
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = Field(None, description="present in an answer that is sent back; has no effect")

    def as_call(self) -> ToolCall:
        """The call for the chat template."""
        return ToolCall(self.function.name, self.function.parsed(), id=self.id)


class ToolFields(Body):
    """The fields of tools."""

    tools: Annotated[List[ToolDefinition], Field(max_length=MOST_TOOLS)] = Field(
        [], description="functions that the answer may call"
    )

    @model_validator(mode="after")
    def _tools_have_names_of_their_own_and_a_size(self) -> "ToolFields":
        names = [tool.function.name for tool in self.tools]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise bad_request(f"tools.{index}.function.name is {name!r}, as an earlier one's", "tools")
        try:
            parameters = json.dumps([tool.function.parameters for tool in self.tools], ensure_ascii=False)
            parameters.encode()
        except (RecursionError, UnicodeEncodeError):
            raise bad_request("tools are nested too deep, or have a lone surrogate", "tools") from None
        size = len(parameters) + sum(len(tool.function.description or "") for tool in self.tools)
        if size > MOST_CHARACTERS:
            raise bad_request(f"tools have {size} characters; they must have at most {MOST_CHARACTERS}", "tools")
        return self

    def as_tools(self) -> list[Tool]:
        """The tools for the chat template."""
        return [tool.as_tool() for tool in self.tools]


class CallingFields(ToolFields):
    """The fields that say whether the answer calls a tool."""

    tool_choice: ToolChoice | None = Field(
        None, description="none, required or a function; auto, the default with tools: if the chat template knows tools"
    )
    parallel_tool_calls: bool = Field(False, description=f"an answer may have up to {MOST_CALLS} calls")

    @property
    def calls(self) -> Literal["none", "auto", "required"]:
        """Whether the answer calls a tool."""
        if isinstance(self.tool_choice, NamedTool):
            return "required"
        return (self.tool_choice or "auto") if self.tools else "none"

    @model_validator(mode="after")
    def _a_choice_is_among_the_tools(self) -> "CallingFields":
        names = [tool.function.name for tool in self.tools]
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.function.name not in names:
            name = shortened(self.tool_choice.function.name)
            raise bad_request(f"tool_choice.function.name is {name}, which is not in tools", "tool_choice")
        if self.tool_choice == "required" and not self.tools:
            raise bad_request("tool_choice is 'required' without tools; it must be none, auto or absent", "tool_choice")
        return self

    def calling_form(self, call_form: CallForm) -> AnswerForm:
        """The form of an answer that calls, or may call, a tool."""
        return AnswerForm("tools", lambda: self._pattern(call_form))

    def _pattern(self, call_form: CallForm) -> str:
        choice = self.tool_choice
        tools = [
            (index, tool)
            for index, tool in enumerate(self.tools)
            if not isinstance(choice, NamedTool) or tool.function.name == choice.function.name
        ]
        call = either(_call_pattern(index, tool, call_form) for index, tool in tools)
        calls = rf"{call}(?:\n{call}){{0,{MOST_CALLS - 1}}}" if self.parallel_tool_calls else call
        if self.calls == "required":
            return calls
        if not call_form.opening:
            # An answer that begins as a call does is one.
            return rf"(?:{calls}|(?:[^{{](?:.|\n)*)?)"
        return rf"{_without(call_form.opening.strip())}(?:{calls})?"


def _call_pattern(index: int, tool: ToolDefinition, call_form: CallForm) -> str:
    """The pattern of a call as `calls_text` writes it."""
    function = tool.function
    path = f"tools.{index}.function.parameters"
    parameters = function.parameters or _NO_PARAMETERS
    if parameters.get("type", "object") != "object":
        raise bad_request(f"{path}.type is {shortened(parameters['type'])}; it must be 'object'", f"{path}.type")
    if "$ref" not in parameters:
        parameters = {"type": "object", **parameters}
    arguments = schema_pattern(parameters, path, blank=" ")
    call = rf'\{{"name": "{re.escape(function.name)}", "arguments": {arguments}\}}'
    return f"{re.escape(call_form.opening)}{call}{re.escape(call_form.closing)}"


def _without(word: str) -> str:
    """The texts without `word`, whose first character is nowhere else in it."""
    first = re.escape(word[0])
    rest = ""
    # From one first character to the next: after each part of the word comes what does not go on with it.
    for character in map(re.escape, reversed(word[1:])):
        onwards = f"|{character}{rest}" if rest else ""
        rest = f"(?:[^{first}{character}][^{first}]*{onwards})?"
    return f"[^{first}]*(?:{first}{rest})*"
