"""Fields that mean something on some models only, through the server."""

import json

import httpx
import pytest

from llada_core import load_model
from tests.llada_core.model.architectures.test_family import CASES, FAMILY
from tests.server.conftest import serving


def client_of(family, model):
    return serving(load_model(FAMILY / family / "models" / model))


@pytest.fixture(scope="module")
def illada():
    with client_of("illada", "tiny-8b-like") as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def dream():
    with client_of("dream", "tiny-7b-like") as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def completed(client, **body):
    answer = client.post("/v1/completions", json={"ignore_eos": True, "return_token_ids": True, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_appended_blocks_with_a_boost_are_the_published_ones(illada):
    (case,) = (
        case for case in CASES["illada"]["generate_append"] if case["id"] == "append/tiny-8b-like/end-think-boost"
    )
    end_thinking = {"token_ids": [20, 33, 47], "boost": 100.0, "power": 2.0}
    body = {"prompt": case["prompt_ids"][0], "max_tokens": 32, "block_length": 8, "method": "append"}
    answer = completed(illada, **body, steps_per_block=8, end_thinking=end_thinking)
    assert answer["choices"][0]["token_ids"] == case["output_ids"][0]
    assert answer["generation_params"]["end_thinking"] == end_thinking
    assert answer["usage"]["forward_passes"] == case["forward_calls"]
    assert completed(illada, **body, steps_per_block=8)["choices"][0]["token_ids"] != case["output_ids"][0]


def test_dreams_default_is_its_schedule_in_time(dream):
    (case,) = (case for case in CASES["dream"]["generate"] if case["id"].endswith("7b-like/entropy-new16-steps8-b1"))
    answer = completed(dream, prompt=case["prompt_ids"][0], max_tokens=16, steps=8, remasking="entropy")
    assert answer["choices"][0]["token_ids"] == case["output_ids"][0]
    used = answer["generation_params"]
    assert (used["schedule"], used["eps"], used["block_length"]) == ("timestep", 0.001, 16)


def test_the_published_defaults_come_back(dream, illada):
    used = completed(dream, prompt=[9], max_tokens=4)["generation_params"]
    assert (used["schedule"], used["remasking"], used["eps"], used["steps"]) == ("timestep", "origin", 0.001, 4)
    uniform = completed(dream, prompt=[9], max_tokens=4, schedule="uniform")["generation_params"]
    assert (uniform["remasking"], uniform["eps"], uniform["block_length"]) == ("low_confidence", None, 4)
    rule = completed(dream, prompt=[9], max_tokens=4, confidence_threshold=0.9)["generation_params"]
    assert (rule["schedule"], rule["remasking"]) == (None, "low_confidence")
    assert completed(illada, prompt=[9], max_tokens=4)["generation_params"]["schedule"] == "uniform"


def test_the_start_of_a_stream_names_the_steps_of_all_blocks(illada):
    body = {"prompt": [9], "max_tokens": 10, "block_length": 4, "steps_per_block": 3}
    start = illada.post("/v1/denoise", json=body).text.splitlines()
    data = next(line for line in start if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["steps"] == 8


def test_a_model_that_does_not_know_a_field_names_both(dream):
    body = {"prompt": [9], "max_tokens": 4, "end_thinking": {"token_ids": [5]}}
    answer = dream.post("/v1/completions", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "end_thinking")
    assert "the sampler of Dream does not know it" in error["message"]


@pytest.mark.parametrize(
    "end_thinking",
    [
        {"token_ids": []},
        {"token_ids": [5] * 65},
        {"token_ids": [400]},
        {},
        {"token_ids": [5], "boost": -1},
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_boost_that_cannot_be_made_is_refused_by_name(illada, end_thinking):
    answer = illada.post("/v1/completions", json={"prompt": [9], "max_tokens": 4, "end_thinking": end_thinking})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "end_thinking")
    assert ("boost" if "boost" in end_thinking else "token") in error["message"]
