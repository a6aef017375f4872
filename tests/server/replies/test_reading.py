"""`POST /v1/denoise` with `steps` 0: the distributions at the masks."""

import math

import httpx
import pytest
import torch

from llada_core.model.packed import PackedTokens, Rows
from server.schemas.answers import Reading
from tests.server.conftest import gauge, serving
from tests.server.replies.test_forking import BODY, error_of, fork_of, run


def read(client, body):
    answer = client.post("/v1/denoise", json={**body, "steps": 0})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    Reading.model_validate(answer.json(), strict=True)
    return answer.json()


def softmax_at(model, ids, positions):
    """Brute force: the probabilities of all tokens."""
    with torch.inference_mode():
        packed = PackedTokens(torch.tensor(ids), (len(ids),))
        hidden_RE = model.hidden_states(packed, Rows(torch.tensor(positions), (len(positions),)))
        probabilities_RV = model.head(hidden_RE).double().softmax(dim=1)
    return probabilities_RV.clone()


@pytest.mark.parametrize("count", [None, 1, 20])
def test_the_most_probable_tokens_at_every_mask_are_those_of_a_brute_force_softmax(tiny, tiny_client, count):
    body = {"canvas": [[5, 6, 7], {"mask": 4}, [8], {"mask": 2}], **({"top_logprobs": count} if count else {})}
    answer = read(tiny_client, body)
    assert answer["token_ids"] == [5, 6, 7, *[319] * 4, 8, 319, 319]
    positions = [mask["position"] for mask in answer["masks"]]
    assert positions == [3, 4, 5, 6, 8, 9]
    probabilities_RV = softmax_at(tiny, answer["token_ids"], positions)
    for banned in (319, *tiny.special_tokens.end_ids):
        probabilities_RV[:, banned] = 0
    top = probabilities_RV[:, :320].topk(count or 5, dim=1)
    for row, mask in enumerate(answer["masks"]):
        assert [one["token_id"] for one in mask["top_logprobs"]] == top.indices[row].tolist()
        read_values = [math.exp(one["logprob"]) for one in mask["top_logprobs"]]
        assert read_values == pytest.approx(top.values[row].tolist(), abs=1e-6)
    assert answer["usage"] == {"prompt_tokens": 4, "completion_tokens": 0, "total_tokens": 4, "forward_passes": 1}


def test_a_prompt_is_read_at_its_whole_response_and_nothing_is_committed(tiny_client):
    answer = read(tiny_client, {**BODY, "cfg_scale": 1.0, "constraints": {"2": [40]}})
    assert [mask["position"] for mask in answer["masks"]] == [position for position in range(14) if position != 2]
    assert answer["usage"]["forward_passes"] == 2 and answer["parent"] is None
    _, steps, _ = run(tiny_client, {**BODY, "constraints": {"2": [40]}, "temperature": 0, "top_logprobs": 5})
    plain = {mask["position"]: mask for mask in read(tiny_client, {**BODY, "constraints": {"2": [40]}})["masks"]}
    (first,) = steps[0]["changes"]
    assert plain[first["position"]]["top_logprobs"] == first["top_logprobs"]


def test_a_frame_of_a_run_is_read_with_edits_and_whatever_its_cache(tiny_client):
    start, steps, _ = run(tiny_client, {**BODY, "cache": "dual", "top_logprobs": 5, "temperature": 0})
    answer = read(tiny_client, fork_of(start, 6))
    assert answer["parent"] == {"id": start["id"], "step": 6}
    # The seventh step fills the cache anew, so it sees what is read.
    (change,) = steps[6]["changes"]
    masks = {mask["position"]: mask["top_logprobs"] for mask in answer["masks"]}
    assert masks[change["position"]] == change["top_logprobs"]
    edited = read(tiny_client, fork_of(start, 14, remask=[3], set={"0": [40]}))
    assert [mask["position"] for mask in edited["masks"]] == [3]
    # The run is as it was.
    assert run(tiny_client, fork_of(start, 6))[1][0]["changes"] == steps[6]["changes"]


def test_texts_of_the_tokens_come_along(live_server):
    body = {"canvas": ["The capital of France is", {"mask": 1}, "."], "top_logprobs": 3}
    with httpx.Client(base_url=live_server, timeout=60) as client:
        (mask,) = read(client, body)["masks"]
    assert mask["top_logprobs"][0]["text"] == " Paris" and len(mask["top_logprobs"]) == 3


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({**BODY, "top_logprobs": 0}, "top_logprobs", "from 1 to 20"),
        ({**BODY, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"prompt": [1], "max_tokens": 1, "constraints": {"0": [40]}}, "steps", "has 0 masks; to be read it must have"),
        ({"canvas": [[1, 2]]}, "canvas", "no gap"),
        ({"prompt": [1], "stream": False}, "stream", "true"),
        ({"prompt": [1], "steps": -1}, "steps", "greater than or equal to 0"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_by_name(tiny_client, body, param, message):
    answer = tiny_client.post("/v1/denoise", json={"steps": 0, **body})
    assert (answer.status_code, error_of(answer)["param"]) == (400, param), error_of(answer)
    assert message.lower() in error_of(answer)["message"].lower()


def test_the_number_of_masks_is_bounded(tiny, monkeypatch):
    monkeypatch.setattr("server.replies.reading.MAX_MASKS", 20)
    with serving(tiny) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert len(read(client, {"prompt": [1], "max_tokens": 20})["masks"]) == 20
        answer = client.post("/v1/denoise", json={"prompt": [1], "max_tokens": 21, "steps": 0})
        assert error_of(answer)["message"] == "steps is 0, and the canvas has 21 masks; to be read it must have 1 to 20"
        # It is no generation, so no finish is counted.
        assert gauge(url, 'llada_requests_finished_total{finish_reason="length"}') == 0


def test_only_denoise_reads(tiny_client):
    answer = tiny_client.post("/v1/completions", json={"prompt": [1], "steps": 0})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "steps")
