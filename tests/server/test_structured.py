"""Answers of a given form: by OpenAI's and vLLM's fields, on every route that generates, whatever the model."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import httpx
import pytest
from pydantic import BaseModel, Field

from server import constraints
from tests.server.conftest import events_of, serving

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ROUTES = {
    "/v1/completions": {"prompt": "Once"},
    "/v1/chat/completions": {"messages": QUESTION},
    "/v1/responses": {"input": "Once"},
    "/v1/denoise": {"prompt": "Once"},
}
CITIES = ["The capital of France is Rome.", "The capital of France is Paris.", "The capital of France is Berlin."]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class City(BaseModel):
    name: str = Field(max_length=10)
    size: Size
    rivers: list[int] = Field(max_length=2)
    country: str | None = Field(max_length=4)


@pytest.fixture(scope="module")
def client(babbler_client):
    return babbler_client


@pytest.fixture(scope="module")
def http(babbler_url):
    with httpx.Client(base_url=babbler_url, timeout=60) as client:
        yield client


def text_of(http, route, **body):
    answer = http.post(route, json={**ROUTES[route], "max_tokens": 40, **body})
    assert answer.status_code == 200, answer.text
    match route:
        case "/v1/completions":
            return answer.json()["choices"][0]["text"]
        case "/v1/chat/completions":
            return answer.json()["choices"][0]["message"]["content"]
        case "/v1/responses":
            return answer.json()["output"][0]["content"][0]["text"]
    return events_of(answer)[-1][1]["text"]


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_answers_in_the_form_that_is_asked_for(http, route):
    assert text_of(http, route, structured_outputs={"choice": ["yes", "no"]}) in ("yes", "no")
    assert text_of(http, route, structured_outputs={"regex": "[xy]{3}"}, steps=8).strip("xy") == ""
    person = json.loads(text_of(http, route, structured_outputs={"json": PERSON}, steps=8))
    assert list(person) == ["name", "age"] and 0 <= person["age"] <= 99


def test_a_choice_is_the_one_that_the_model_would_say(live_server):
    with httpx.Client(base_url=live_server, timeout=60) as http:
        assert text_of(http, "/v1/chat/completions", structured_outputs={"choice": CITIES}) == CITIES[1]


def test_at_a_high_temperature_every_choice_is_drawn(http):
    drawn = http.post(
        "/v1/chat/completions",
        json={
            "messages": QUESTION,
            "structured_outputs": {"choice": ["a", "b"]},
            "temperature": 50,
            "n": 8,
            "seed": 0,
            "max_tokens": 2,
        },
    )
    assert {choice["message"]["content"] for choice in drawn.json()["choices"]} == {"a", "b"}


@pytest.mark.parametrize("settings", [{"steps": 16}, {"preset": "fast"}], ids=str)
def test_the_client_parses_answers_into_models(client, settings):
    request = {"model": "llada-demo", "max_tokens": 60, "temperature": 2.0, "seed": 1, "extra_body": settings}
    answer = client.chat.completions.parse(messages=QUESTION, response_format=City, **request)
    assert isinstance(answer.choices[0].message.parsed, City)


def test_the_client_parses_responses_into_models(client):
    answer = client.responses.parse(model="llada-demo", input="Paris?", text_format=City, extra_body={"steps": 16})
    assert isinstance(answer.output_parsed, City)
    assert answer.text.format.type == "json_schema"


@pytest.mark.parametrize("max_tokens", [2, 3, 24])
def test_any_object_fits_whatever_room_there_is(client, max_tokens):
    for seed in range(2):
        answer = client.chat.completions.create(
            model="llada-demo",
            messages=QUESTION,
            response_format={"type": "json_object"},
            max_tokens=max_tokens,
            temperature=2.0,
            seed=seed,
        )
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
        assert answer.choices[0].finish_reason == "stop"


def test_a_streamed_answer_is_the_plain_one(client):
    request = {"model": "llada-demo", "messages": QUESTION, "max_tokens": 40, "temperature": 1.0, "seed": 3}
    request["response_format"] = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    plain = client.chat.completions.create(**request).choices[0]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**request, stream=True)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == plain.message.content
    assert chunks[-1].finish_reason == plain.finish_reason


def test_choices_of_one_answer_are_each_in_the_form(http):
    body = {"messages": QUESTION, "structured_outputs": {"json": PERSON}, "n": 3, "temperature": 1.0, "max_tokens": 32}
    for choice in http.post("/v1/chat/completions", json=body).json()["choices"]:
        assert list(json.loads(choice["message"]["content"])) == ["name", "age"]


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"structured_outputs": {}}, "structured_outputs", "none of them given"),
        (
            {"structured_outputs": {"regex": "a", "choice": ["b"]}},
            "structured_outputs.choice",
            "regex and choice given",
        ),
        ({"structured_outputs": {"grammar": "x"}}, "structured_outputs", "does not support"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs", "at least 1"),
        ({"structured_outputs": {"choice": [""]}}, "structured_outputs", "not be empty"),
        ({"structured_outputs": {"choice": ["a"] * 1001}}, "structured_outputs", "at most 1000"),
        ({"structured_outputs": {"regex": ""}}, "structured_outputs", "not be empty"),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex", "not closed"),
        ({"structured_outputs": {"regex": "(?=a)"}}, "structured_outputs.regex", "look-ahead"),
        ({"structured_outputs": {"regex": "[^\x00-\U0010ffff]"}}, "structured_outputs.regex", "matches no text"),
        ({"structured_outputs": {"json": "{}"}}, "structured_outputs", "a JSON object"),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "beside",
        ),
        ({"structured_outputs": {"regex": "a"}, "stop": "b"}, "stop", "absent where the answer is constrained"),
        ({"structured_outputs": {"regex": "a"}, "ignore_eos": True}, "ignore_eos", "constrained"),
        (
            {"structured_outputs": {"json": PERSON}, "max_tokens": 7},
            "max_tokens",
            "is 7; the shortest answer",
        ),
        ({"structured_outputs": {"regex": "(abc ){200}"}}, "max_tokens", "is 128 by default; the shortest answer"),
        ({"response_format": {"type": "xml"}}, "response_format", "'json_object'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "must be there"),
        (
            {"response_format": {"type": "text", "json_schema": {"name": "x", "schema": {}}}},
            "response_format.json_schema",
            "must be absent",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format",
            "schema is missing",
        ),
        (
            {"response_format": schema_format({"properties": {"age": {"multipleOf": 5}}})},
            "response_format.json_schema.schema.properties.age.multipleOf",
            "not supported",
        ),
        (
            {"structured_outputs": {"json": {"items": {"not": {}}}}},
            "structured_outputs.json.items.not",
            "not supported",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_done_is_refused_by_name(http, fields, param, message):
    answer = http.post("/v1/chat/completions", json={"messages": QUESTION, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]


def test_a_form_is_refused_beside_a_suffix_and_a_canvas(http):
    form = {"structured_outputs": {"choice": ["a"]}}
    canvas = http.post("/v1/denoise", json={"canvas": ["a", {"mask": 2}], **form}).json()["error"]
    suffix = http.post("/v1/fim/completions", json={"prompt": "a", "suffix": "b", **form}).json()["error"]
    assert (canvas["param"], suffix["param"]) == ("structured_outputs", "suffix")


def test_a_pinned_token_that_no_answer_has_is_refused(http):
    body = {"prompt": "Once", "max_tokens": 4, "structured_outputs": {"regex": "ab*"}, "constraints": {"0": "x"}}
    assert http.post("/v1/denoise", json=body).json()["error"]["param"] == "constraints"


def deep(levels):
    schema = {"type": "integer"}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return schema


PATHOLOGICAL = {
    "states": {"regex": "(a|b)*a(a|b){40}"},
    "repeats": {"regex": "((a{1,99}){1,99}){1,99}"},
    "classes": {"regex": "".join(f"(é{number}|日*)?" for number in range(3000))},
    "nested groups": {"regex": "(" * 20_000 + ")" * 20_000},
    "nested schema": {"json": deep(300)},
    "megabytes": {"json": {"enum": ["x" * 3_000_000]}},
    "properties": {"json": {"properties": {f"p{number}": {"type": "string"} for number in range(1000)}}},
    "long strings": {"json": {"type": "array", "items": {"type": "string", "maxLength": 9999}, "maxItems": 9999}},
}


@pytest.mark.parametrize("form", PATHOLOGICAL)
def test_a_pathological_form_is_refused_and_never_stalls_the_server(live_server, form):
    slowest = 0.0
    with httpx.Client(base_url=live_server, timeout=60) as http, ThreadPoolExecutor(3) as pool:
        bodies = [{"messages": QUESTION, "structured_outputs": PATHOLOGICAL[form]}] * 3
        answers = [
            pool.submit(httpx.post, f"{live_server}/v1/chat/completions", json=body, timeout=60) for body in bodies
        ]
        while not all(answer.done() for answer in answers):
            asked = time.monotonic()
            assert http.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.01)
    assert {answer.result().status_code for answer in answers} == {400}
    assert all(answer.result().json()["error"]["param"].startswith("structured_outputs") for answer in answers)
    assert slowest < 2


def test_a_form_that_many_ask_for_at_once_is_compiled_once(monkeypatch, babbler, demo_tokenizer):
    compiled, gate = [], threading.Event()
    compile_constraint = constraints.compile_constraint

    def slowly(pattern, vocabulary):
        compiled.append(pattern)
        gate.wait(10)
        return compile_constraint(pattern, vocabulary)

    monkeypatch.setattr(constraints, "compile_constraint", slowly)
    body = {"prompt": "Once", "max_tokens": 2, "structured_outputs": {"choice": ["yes", "no"]}}
    with serving(babbler, demo_tokenizer) as url, ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(httpx.post, f"{url}/v1/completions", json=body, timeout=30) for _ in range(4)]
        time.sleep(0.3)
        assert httpx.get(f"{url}/health", timeout=5).status_code == 200
        gate.set()
        assert {answer.result().status_code for answer in answers} == {200}
    assert compiled == ["(?:yes|no)"]
