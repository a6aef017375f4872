"""GenerationParams is the definition of the parameters; schema, OpenAPI page, documentation and CLI follow it."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args

import httpx
import pytest

from llada_core import GenerationParams
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.params import PRESETS, Method
from llada_core.sampling.scores import SCORES
from server.app import create_app
from server.schemas.denoise import DenoiseRequest
from server.schemas.openai import ChatCompletionRequest, CompletionRequest
from server.schemas.responses import ResponseRequest
from server.settings import Settings
from training.options.fields import GenerateOptions

PARAMS = {field.name: field for field in fields(GenerationParams)}
ROOT = Path(__file__).parent.parent
BODIES = (
    CompletionRequest,
    ChatCompletionRequest,
    DenoiseRequest,
    ResponseRequest,
)
ROUTES = ("/v1/completions", "/v1/chat/completions", "/v1/denoise", "/v1/responses", "/v1/fim/completions")


@pytest.fixture(scope="module")
def openapi(tiny):
    return create_app(Settings(), tiny, None).openapi()


def body_schema(openapi, route):
    content = openapi["paths"][route]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return openapi["components"]["schemas"][content["$ref"].rsplit("/", 1)[1]]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_every_body_takes_every_parameter_with_its_default(body):
    assert PARAMS.keys() <= body.model_fields.keys()
    for name, field in PARAMS.items():
        default = field.default if field.default is not MISSING else field.default_factory()
        given = body.model_fields[name].get_default(call_default_factory=True)
        # The seed is drawn, the length follows from the room; containers differ in their kind alone.
        if name not in ("seed", "gen_length"):
            assert given == default or (not given and not default), name


@pytest.mark.parametrize("route", ROUTES)
def test_the_openapi_page_lists_and_explains_them(openapi, route):
    properties = body_schema(openapi, route)["properties"]
    for name in PARAMS:
        assert properties[name].get("description"), name


def test_choices_are_the_core_s(openapi):
    properties = body_schema(openapi, "/v1/completions")["properties"]
    for name, table in (
        ("method", get_args(Method)),
        ("remasking", SCORES),
        ("cache", CACHE_POLICIES),
        ("preset", PRESETS),
    ):
        assert properties[name]["anyOf"] == [{"type": "string", "enum": list(table)}, {"type": "null"}]


def test_the_command_line_has_every_parameter():
    assert PARAMS.keys() <= GenerateOptions.model_fields.keys()


def test_the_examples_of_the_openapi_page_really_run(openapi, live_server):
    tried = []
    for route, methods in openapi["paths"].items():
        if "requestBody" not in methods.get("post", {}):
            continue
        examples = body_schema(openapi, route)["examples"]
        tried += [route] * bool(examples)
        for example in examples:
            answer = httpx.post(live_server + route, json=example, timeout=60)
            assert answer.status_code == 200, (route, answer.text)
    with_body = [methods for methods in openapi["paths"].values() if "requestBody" in methods.get("post", {})]
    assert len(tried) == len(with_body) == 11


def test_every_route_of_the_page_is_documented(openapi):
    text = (ROOT / "docs/api.md").read_text()
    for route in openapi["paths"]:
        assert route.split("{")[0].rstrip("/") in text, route
