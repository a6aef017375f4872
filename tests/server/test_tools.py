"""Tools through the official `openai` client and over plain HTTP; the constraint makes calls valid on any model."""

import json

import httpx
import openai
import pytest
from pydantic import BaseModel, Field

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.text.chat_template import ChatTemplate
from llada_core.text.tokenizer import Message
from llada_core.text.tool_prompt import Tool, ToolCall
from tests.llada_core.text.test_chat_template import TOOL_TEMPLATE
from tests.server.conftest import serving

QUESTION = [{"role": "user", "content": "What is 12 + 7?"}]


def tool(name="calculator", parameters=None, **more):
    return {
        "type": "function",
        "function": {"name": name, **({"parameters": parameters} if parameters else {}), **more},
    }


EXPRESSION = {
    "type": "object",
    "properties": {"expression": {"type": "string", "maxLength": 12}},
    "required": ["expression"],
}
CALCULATOR = tool(parameters=EXPRESSION, description="Evaluate an arithmetic expression.")
WAIT = tool(
    "wait",
    {
        "type": "object",
        "properties": {"seconds": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["seconds"],
    },
)
TOOLS = [CALCULATOR, WAIT, tool("now")]


@pytest.fixture(scope="module")
def client(babbler_client):
    return babbler_client


@pytest.fixture(scope="module")
def http(babbler_url):
    with httpx.Client(base_url=babbler_url, timeout=60) as client:
        yield client


def ask(http, **body):
    return http.post("/v1/chat/completions", json={"messages": QUESTION, "tools": TOOLS, "max_tokens": 64, **body})


def test_a_loop_of_calls_and_results_runs_with_the_official_client(client):
    messages = list(QUESTION)
    request = {"model": "llada-demo", "tools": [CALCULATOR], "max_tokens": 64}
    answer = client.chat.completions.create(messages=messages, tool_choice="required", **request).choices[0]
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    (call,) = answer.message.tool_calls
    assert call.function.name == "calculator" and set(json.loads(call.function.arguments)) == {"expression"}
    messages += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "19"}]
    answer = client.chat.completions.create(messages=messages, tool_choice="none", **request).choices[0]
    assert answer.finish_reason in ("stop", "length") and answer.message.tool_calls is None


def test_the_client_s_parsed_calls_are_instances_of_the_model_and_can_be_sent_back(client):
    class Wait(BaseModel):
        seconds: int = Field(ge=1, le=9)

    request = {"model": "llada-demo", "tools": [openai.pydantic_function_tool(Wait)], "max_tokens": 64}
    named = {"type": "function", "function": {"name": "Wait"}}
    message = client.chat.completions.parse(messages=QUESTION, tool_choice=named, **request).choices[0].message
    (call,) = message.tool_calls
    assert isinstance(call.function.parsed_arguments, Wait)
    messages = [*QUESTION, message, {"role": "tool", "tool_call_id": call.id, "content": "done"}]
    client.chat.completions.create(messages=messages, tool_choice="none", **request)


SAMPLED = {"temperature": 2.0, "parallel_tool_calls": True, "logprobs": True}


@pytest.mark.parametrize("settings", [{}, {**SAMPLED, "seed": 0}, {**SAMPLED, "seed": 1}], ids=str)
def test_streamed_calls_are_those_of_the_plain_answer(client, settings):
    request = {"model": "llada-demo", "messages": QUESTION, "tools": TOOLS, "tool_choice": "required"}
    request |= {"max_tokens": 96, **settings}
    plain = client.chat.completions.create(**request).choices[0]
    with client.chat.completions.stream(**request) as stream:
        deltas = [event.chunk.choices[0].delta for event in stream if event.type == "chunk" and event.chunk.choices]
        streamed = stream.get_final_completion().choices[0]
    calls = [delta.tool_calls[0] for delta in deltas if delta.tool_calls]
    assert [(call.function.name, call.function.arguments) for call in streamed.message.tool_calls] == [
        (call.function.name, call.function.arguments) for call in plain.message.tool_calls
    ]
    assert streamed.finish_reason == plain.finish_reason == "tool_calls"
    # The name first, alone; then pieces of the arguments.
    assert calls[0].function.name and not calls[0].function.arguments and calls[0].id
    assert {call.function.name for call in calls if call.function.arguments} == {None}
    assert len({call.id for call in plain.message.tool_calls}) == len(plain.message.tool_calls) <= 4
    for call in plain.message.tool_calls:
        json.loads(call.function.arguments)


def test_many_seeds_call_nothing_but_the_tools_with_valid_arguments(http):
    # The shortest call alone is by far the most probable, so a text of some length is asked for.
    settings = {"tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 96, "min_tokens": 80}
    settings |= {"temperature": 5.0, "n": 6, "seed": 0, "steps": 8}
    answer = ask(http, **settings).json()
    calls = [call["function"] for choice in answer["choices"] for call in choice["message"]["tool_calls"]]
    assert len({call["name"] for call in calls}) > 1 and len(calls) > 6
    for call in calls:
        arguments = json.loads(call["arguments"])
        match call["name"]:
            case "calculator":
                assert len(arguments["expression"]) <= 12
            case "wait":
                assert 1 <= arguments["seconds"] <= 9
            case name:
                assert (name, arguments) == ("now", {})


def test_a_named_function_is_the_one_that_is_called(http):
    answer = ask(http, tool_choice={"type": "function", "function": {"name": "now"}}).json()["choices"][0]
    (call,) = answer["message"]["tool_calls"]
    assert (call["function"], answer["finish_reason"]) == ({"name": "now", "arguments": "{}"}, "tool_calls")


def test_the_call_that_is_generated_is_the_text_that_its_history_holds(demo_tokenizer, http):
    answer = ask(http, tool_choice={"type": "function", "function": {"name": "now"}}, return_token_ids=True).json()
    assert demo_tokenizer.decode(answer["choices"][0]["token_ids"]) == '{"name": "now", "arguments": {}}'


def test_tools_calls_and_results_are_in_the_prompt(demo_tokenizer, http):
    call = {"id": "a", "type": "function", "function": {"name": "calculator", "arguments": '{"expression":"1"}'}}
    second = {"id": "b", "type": "function", "function": {"name": "now", "arguments": ""}}
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call, second]},
        {"role": "tool", "tool_call_id": "b", "content": "noon"},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "1"}]},
    ]
    tokens = http.post("/tokenize", json={"messages": messages, "tools": [CALCULATOR]}).json()["tokens"]
    calculator = Tool("calculator", "Evaluate an arithmetic expression.", EXPRESSION)
    calls = (ToolCall("calculator", {"expression": "1"}), ToolCall("now", {}))
    turns = [
        Message("user", QUESTION[0]["content"]),
        Message("assistant", "", calls),
        Message("tool", "1"),
        Message("tool", "noon"),
    ]
    assert tokens == demo_tokenizer.encode_chat(turns, [calculator])


def called(arguments="{}", role="assistant"):
    return {"role": role, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": arguments}}]}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({}, "tool_choice", "means 'auto'; this model's chat template knows no tools"),
        ({"tool_choice": "auto"}, "tool_choice", "knows no tools"),
        ({"tool_choice": "required", "tools": []}, "tool_choice", "without tools"),
        ({"tool_choice": "any"}, "tool_choice", "'required'"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice", "function"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "not in tools"),
        ({"tools": [{"type": "web_search"}]}, "tools", "function"),
        ({"tools": [tool(), tool()]}, "tools", "as an earlier one's"),
        ({"tools": [tool("a b")]}, "tools", "name"),
        ({"tools": [tool(str(number)) for number in range(129)]}, "tools", "128"),
        ({"tools": [tool(description="x" * 70_000)]}, "tools", "65536"),
        ({"tool_choice": "required", "response_format": {"type": "json_object"}}, "response_format", "beside tools"),
        ({"tool_choice": "required", "structured_outputs": {"regex": "a"}}, "structured_outputs", "beside tools"),
        ({"tool_choice": "required", "stream": True, "diffusing": True}, "diffusing", "beside tools"),
        ({"tool_choice": "required", "stop": "x"}, "stop", "constrained"),
        ({"tool_choice": "required", "max_tokens": 3}, "max_tokens", "shortest answer that matches takes"),
        ({"messages": [*QUESTION, {"role": "tool", "tool_call_id": "a", "content": "x"}]}, "messages", "turn before"),
        (
            {"messages": [*QUESTION, called(), *[{"role": "tool", "tool_call_id": "a", "content": "x"}] * 2]},
            "messages",
            "answered once",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages", "tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "a"}]}, "messages", "role is tool"),
        ({"messages": [called(role="user")]}, "messages", "role is assistant"),
        ({"messages": [*QUESTION, called() | {"tool_calls": called()["tool_calls"] * 2}]}, "messages", "different ids"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages", "must have content"),
        *(
            ({"messages": [called(text)]}, "messages", "JSON object")
            for text in ("[]", "{", "1", '{"a": "\\ud800"}', '{"a":' * 5000)
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_done_is_refused_by_name(http, body, param, message):
    answer = ask(http, **({"tool_choice": "none"} if "messages" in body or "tools" in body else {}) | body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"type": "object", "properties": {"a": {"multipleOf": 2}}}, ".properties.a.multipleOf"),
        ({"type": "string"}, ".type"),
        ({"properties": 5}, ".properties"),
        ({"required": ["a"]}, ".required"),
        ({"if": {}}, ".if"),
    ],
)
def test_a_refused_keyword_of_a_tool_is_named_by_its_path(http, parameters, path):
    answer = ask(http, tools=[CALCULATOR, tool("f", parameters)], tool_choice="required")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"tools.1.function.parameters{path}")


def test_tools_of_any_shape_are_shown_where_none_is_called(http):
    for parameters in ({"properties": 5}, {"properties": {"a": [1]}}, {"required": 7, "properties": {}}, {"a": "b"}):
        answer = ask(http, tools=[tool("f", parameters)], tool_choice="none", max_tokens=2)
        assert answer.status_code == 200, answer.text


def template_server(model, source):
    return serving(model, load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(source)))


PLAIN_TEMPLATE = TOOL_TEMPLATE.replace("<tool_call>", "").replace("</tool_call>", "")


@pytest.mark.parametrize("source", [PLAIN_TEMPLATE, TOOL_TEMPLATE], ids=["plain", "tagged"])
def test_where_the_template_knows_tools_an_answer_may_call_or_not(babbler, source):
    with template_server(babbler, source) as url, httpx.Client(base_url=url, timeout=60) as http:
        asked = {"temperature": 3.0, "n": 4, "seed": 0, "max_tokens": 40, "steps": 8}
        choices = ask(http, **asked).json()["choices"]
        for choice in choices:
            has_calls = "tool_calls" in choice["message"]
            assert (choice["finish_reason"] == "tool_calls") == has_calls
            for call in choice["message"].get("tool_calls", ()):
                json.loads(call["function"]["arguments"])
            assert has_calls or "<tool_call>" not in choice["message"]["content"]
        required = ask(http, **asked | {"tool_choice": "required"}).json()["choices"]
        assert all(choice["message"]["tool_calls"] for choice in required)
