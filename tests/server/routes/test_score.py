"""`/v1/score`: its estimate, its turns with other requests, and how it can end."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llada_core import GenerationParams, generate
from llada_core.diffusion.likelihood import log_likelihood
from tests.llada_core.diffusion.test_likelihood import exact_bound
from tests.server.conftest import serving, until

BODY = {"prompt": [3, 4, 5], "completion": [9, 200, 17], "mc_num": 1024, "seed": 1}


def ask(client, **body):
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
@pytest.mark.parametrize("completion", [[7], [9, 200], [5, 90, 17, 33]])
def test_the_estimate_agrees_with_exact_enumeration(tiny, tiny_client, completion, cfg_scale):
    answer = ask(tiny_client, **{**BODY, "completion": completion, "cfg_scale": cfg_scale})
    exact = exact_bound(tiny, BODY["prompt"], completion, cfg_scale)
    assert answer["log_likelihood"] == pytest.approx(exact, abs=max(3 * answer["stderr"], 1e-3))
    assert (answer["num_tokens"], answer["mc_num"]) == (len(completion), 1024)
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": len(completion),
        "total_tokens": 3 + len(completion),
        "forward_passes": 2048 if cfg_scale else 1024,
    }


def test_the_same_seed_gives_the_same_estimate_as_the_core(tiny, tiny_client):
    answer = ask(tiny_client, **BODY)
    expected = log_likelihood(tiny, BODY["prompt"], BODY["completion"], mask_id=319, mc_num=1024, seed=1)
    assert answer["log_likelihood"] == pytest.approx(expected.value, abs=1e-4)
    assert answer["stderr"] == pytest.approx(expected.stderr, abs=1e-4)
    drawn = ask(tiny_client, **{name: BODY[name] for name in BODY if name != "seed"})
    assert ask(tiny_client, **{**BODY, "seed": drawn["seed"]}) == drawn != answer


def test_one_draw_has_no_standard_error(tiny_client):
    assert ask(tiny_client, **{**BODY, "mc_num": 1})["stderr"] is None


def test_the_right_answer_is_likelier(live_server):
    with httpx.Client(base_url=live_server, timeout=60) as client:
        prompt = client.post(
            "/tokenize", json={"messages": [{"role": "user", "content": "What is the capital of France?"}]}
        ).json()["tokens"]
        right, wrong = (
            ask(client, prompt=prompt, completion=f"The capital of France is {city}.", mc_num=32, seed=0)
            for city in ("Paris", "Rome")
        )
    assert right["log_likelihood"] > wrong["log_likelihood"] + 1


@pytest.mark.parametrize("model_threads", [1, 2])
def test_scores_and_generations_take_turns(tiny, model_threads):
    with (
        serving(tiny, model_threads=model_threads) as url,
        httpx.Client(base_url=url, timeout=120) as client,
        ThreadPoolExecutor(12) as pool,
    ):
        scores = [pool.submit(ask, client, **BODY) for _ in range(4)]
        body = {"prompt": [1], "max_tokens": 24, "ignore_eos": True, "return_token_ids": True}
        texts = [pool.submit(client.post, "/v1/completions", json=body) for _ in range(4)]
        expected = generate(tiny, [[1]], GenerationParams(gen_length=24, ignore_eos=True))[0].token_ids
        assert all(text.result().json()["choices"][0]["token_ids"] == expected for text in texts)
        assert len({score.result()["log_likelihood"] for score in scores}) == 1


def test_a_client_that_leaves_ends_its_score(tiny, monkeypatch):
    parts = []
    head = type(tiny).head
    monkeypatch.setattr(type(tiny), "head", lambda self, hidden: parts.append(1) or head(self, hidden))
    long = {"prompt": [1] * 100, "completion": [2] * 100, "mc_num": 4096}
    with serving(tiny) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/score", json=long, timeout=0.3)

        def stands_still():
            before = len(parts)
            httpx.get(f"{url}/health")
            return len(parts) == before

        until(stands_still)
        assert len(parts) < 2000
        # The thread goes on with other requests.
        assert httpx.post(f"{url}/v1/score", json={**BODY, "mc_num": 2}, timeout=30).status_code == 200


def test_past_the_time_limit_it_is_a_504(tiny):
    long = {"prompt": [1] * 100, "completion": [2] * 100, "mc_num": 4096}
    with serving(tiny, request_timeout=0.2) as url:
        answer = httpx.post(f"{url}/v1/score", json=long, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


def test_a_failing_model_fails_only_the_score(tiny, monkeypatch):
    head = type(tiny).head
    with serving(tiny) as url:
        monkeypatch.setattr(type(tiny), "head", lambda self, hidden: 1 / 0)
        failed = httpx.post(f"{url}/v1/score", json=BODY, timeout=30)
        assert failed.status_code == 500
        monkeypatch.setattr(type(tiny), "head", head)
        assert httpx.post(f"{url}/v1/score", json=BODY, timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"mc_num": 0}, "mc_num", "greater than or equal to 1"),
        ({"mc_num": 5000}, "mc_num", "less than or equal to 4096"),
        ({"completion": []}, "completion", "at least 1"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"completion": [319]}, "completion", "mask id"),
        ({"completion": [400]}, "completion", "from 0 to 319"),
        ({"completion": [1] * 254}, "completion", "max_model_len (256)"),
        ({"completion": "text"}, "completion", "no tokenizer"),
        ({"max_tokens": 4}, "max_tokens", "not a field"),
    ],
    ids=str,
)
def test_bad_input_is_refused_by_name(tiny_client, changes, param, message):
    answer = tiny_client.post("/v1/score", json={**BODY, **changes})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]
