"""Client libraries that people use with servers like this one; `make test-clients` runs these tests."""

import datetime
import json
import re
from typing import Literal

import pytest
from pydantic import BaseModel, Field, create_model

pytestmark = [
    pytest.mark.clients,
    # Warnings that the packages cause themselves.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(autouse=True)
def no_price_list(monkeypatch):
    """litellm downloads this table when it is imported."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_litellm_completes_a_chat_plain_and_streamed(live_server):
    import litellm

    request = {
        "model": "openai/llada-demo",
        "api_base": f"{live_server}/v1",
        "api_key": "unused",
        "messages": QUESTION,
        "max_tokens": 32,
    }
    answer = litellm.completion(**request)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens > 0) == ("stop", True)
    chunks = list(litellm.completion(**request, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content


def test_litellm_passes_the_diffusion_fields_on(live_server):
    import litellm

    answer = litellm.completion(
        model="openai/llada-demo",
        api_base=f"{live_server}/v1",
        api_key="unused",
        messages=QUESTION,
        max_tokens=32,
        extra_body={"steps": 8, "remasking": "entropy"},
    )
    assert answer.usage.denoising_steps <= 8
    assert answer.generation_params["remasking"] == "entropy"


def test_langchain_completes_a_chat_plain_and_streamed(live_server):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model="llada-demo", base_url=f"{live_server}/v1", api_key="unused", max_tokens=32)
    answer = chat.invoke([("system", "Answer briefly."), ("human", "What is the capital of France?")])
    assert "Paris" in answer.content
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["output_tokens"] > 0
    plain = chat.invoke("What is the capital of France?").content
    assert "".join(chunk.content for chunk in chat.stream("What is the capital of France?")) == plain


class Fruit(BaseModel):
    name: str = Field(max_length=12)
    colour: Literal["red", "green"]
    number: int = Field(ge=0, le=99)


def openai_client(server):
    from openai import OpenAI

    return OpenAI(base_url=f"{server}/v1", api_key="unused")


@pytest.mark.parametrize("mode", ["JSON_SCHEMA", "TOOLS", "TOOLS_STRICT", "JSON"])
def test_instructor_gets_an_instance_of_its_model_at_the_first_attempt(live_server, mode):
    import instructor

    client = instructor.from_openai(openai_client(live_server), mode=instructor.Mode[mode])
    # A JSON object of any fields is all that the mode JSON asks for.
    model = Fruit if mode != "JSON" else create_model("Anything", __config__={"extra": "allow"})
    fruit = client.chat.completions.create(
        model="llada-demo", messages=QUESTION, response_model=model, max_retries=0, max_tokens=96
    )
    assert isinstance(fruit, model)


def test_instructor_streams_an_instance_that_grows(live_server):
    import instructor

    client = instructor.from_openai(openai_client(live_server), mode=instructor.Mode.JSON_SCHEMA)
    *_, last = client.chat.completions.create_partial(
        model="llada-demo", messages=QUESTION, response_model=Fruit, max_retries=0, max_tokens=96
    )
    assert Fruit(**last.model_dump())


@pytest.mark.parametrize("kind", ["from_openai", "from_vllm"])
def test_outlines_gets_json_of_its_model(live_server, kind):
    import outlines

    model = getattr(outlines, kind)(openai_client(live_server), "llada-demo")
    assert Fruit.model_validate_json(model("What is red?", Fruit, max_tokens=96))


@pytest.mark.parametrize("name", ["choice", "integer", "number", "boolean", "date", "expression", "list"])
def test_outlines_gets_the_types_that_it_writes_as_expressions(live_server, name):
    import outlines
    from outlines.types import Regex

    types = {
        "choice": Literal["Paris", "Rome"],
        "integer": int,
        "number": float,
        "boolean": bool,
        "date": datetime.date,
        "expression": Regex("[A-Z]{3}-[0-9]{2}"),
        "list": list[int],
    }
    checks = {"choice": ["Paris", "Rome"].index, "integer": int, "number": float, "date": datetime.date.fromisoformat}
    model = outlines.from_vllm(openai_client(live_server), "llada-demo")
    text = model("What is the capital of France?", types[name], max_tokens=48)
    checks.get(name, {"boolean": ["True", "False"].index, "list": json.loads}.get(name, str))(text)
    assert re.fullmatch("[A-Z]{3}-[0-9]{2}", text) or name != "expression"
