"""Clients with keys of their own share one server."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from llada_core import GenerationParams, generate
from tests.server.conftest import serving

PARAMS = {"cache": "dual", "block_length": 10, "temperature": 1.0, "ignore_eos": True}


def complete(url: str, key: str, **body: object) -> list[int]:
    answer = httpx.post(
        f"{url}/v1/completions",
        json={"prompt": [1, 2, 3], "return_token_ids": True, **PARAMS, **body},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"]


def test_a_client_whose_requests_make_way_gets_the_same_tokens_and_others_do_not_wait_for_it(tiny):
    expected = [
        generate(tiny, [[1, 2, 3]], GenerationParams(gen_length=50, seed=seed, **PARAMS))[0].token_ids
        for seed in range(4)
    ]
    with serving(tiny, api_key=["greedy", "polite"], max_batch_size=2) as url, ThreadPoolExecutor(4) as pool:
        greedy = [pool.submit(complete, url, "greedy", max_tokens=50, seed=seed) for seed in range(4)]
        polite = 0
        while not all(answer.done() for answer in greedy):
            complete(url, "polite", max_tokens=10)
            polite += 1
        assert [answer.result() for answer in greedy] == expected
    # In the order of arrival it would have been one after two of them, and perhaps a second.
    assert polite > 4


def test_one_request_for_many_choices_leaves_others_their_share(tiny):
    with serving(tiny, api_key=["greedy", "polite"]) as url, ThreadPoolExecutor(1) as pool:
        many = pool.submit(complete, url, "greedy", n=64, max_tokens=20)
        polite = 0
        while not many.done():
            complete(url, "polite", max_tokens=10)
            polite += 1
    assert polite > 4
