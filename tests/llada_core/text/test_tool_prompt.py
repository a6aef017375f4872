"""The plain form of tools, calls and results."""

from llada_core.text.tool_prompt import Tool, ToolCall, calls_text, result_text, tools_text


def object_of(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


def test_a_function_is_one_line():
    calculator = Tool(
        "calculator", "Evaluate an arithmetic expression.", object_of(["expression"], expression={"type": "string"})
    )
    assert tools_text([calculator, Tool("now")]).split("\n")[1:] == [
        "calculator(expression: string): Evaluate an arithmetic expression.",
        "now()",
    ]


def test_optional_parameters_choices_lists_and_descriptions_are_shown():
    weather = Tool(
        "weather",
        parameters=object_of(
            ["city"],
            city={"type": "string", "description": "Where."},
            unit={"enum": ["C", "F"], "type": "string"},
            days={"type": "array", "items": {"type": "integer"}},
        ),
    )
    assert tools_text([weather]).split("\n")[1:] == [
        'weather(city: string, unit?: "C" | "F", days?: [integer])',
        "  city: Where.",
    ]


def test_nested_parameters_are_shown_as_their_schema():
    nested = Tool("move", "Go there.", object_of(to=object_of(x={"type": "number"})))
    assert tools_text([nested]).split("\n")[1] == (
        'move {"type": "object", "properties": {"to": {"type": "object", "properties": {"x": {"type": "number"}}, '
        '"required": []}}, "required": []}: Go there.'
    )


def test_calls_are_json_one_a_line():
    calls = [ToolCall("calculator", {"expression": "2 + 2"}), ToolCall("say", {"text": "žluť"}, id="call_1")]
    assert calls_text(calls) == (
        '{"name": "calculator", "arguments": {"expression": "2 + 2"}}\n{"name": "say", "arguments": {"text": "žluť"}}'
    )


def test_a_result_says_that_it_is_one():
    assert result_text("4") == "Result: 4"
