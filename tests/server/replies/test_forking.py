"""Forks of runs of `/v1/denoise`, and runs that go on from a frame that the client sends."""

import httpx
import pytest

from server.schemas.answers import RunFrame
from tests.server.conftest import GatedSampler, events_of, gauge, serving, until
from tests.server.replies.test_parking import read_until
from tests.server.routes.test_denoise import SEGMENTS, replay

BODY = {"prompt": [1, 2, 3], "max_tokens": 14, "block_length": 6, "ignore_eos": True, "temperature": 1.0, "seed": 5}
CANVAS = {"canvas": SEGMENTS, "block_length": 8, "temperature": 1.0, "seed": 5}


def run(client, body):
    """The data of `start`, of the steps and of `done`; their replay is checked."""
    answer = client.post("/v1/denoise", json=body)
    assert answer.status_code == 200, answer.text
    return replay(events_of(answer))


def fork_of(start, step, **fields):
    edits = {name: fields.pop(name) for name in ("remask", "set") if name in fields}
    return {"fork": {"id": start["id"], "step": step, **edits}, **fields}


def timeless(steps):
    return [{name: value for name, value in step.items() if name != "elapsed_ms"} for step in steps]


def changes_of(steps):
    return [change for step in steps for change in step["changes"]]


def error_of(answer):
    return answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        {**BODY, "steps": 5, "top_logprobs": 2, "cfg_scale": 0.5},
        {**BODY, "cache": "dual", "cache_refresh_interval": 2},
        {**BODY, "cache": "delayed", "entropy_threshold": 4.5, "active_blocks": 2, "suffix_window": 2},
        {**BODY, "preset": "fast", "method": "semi_autoregressive_origin"},
        {**BODY, "remasking": "random", "constraints": {"3": [40, 41]}},
        CANVAS,
    ],
    ids=str,
)
def test_a_fork_without_edits_is_the_rest_of_its_parent_with_the_changes_before_it(tiny_client, body):
    start, steps, done = run(tiny_client, body)
    for step in range(len(steps) + 1):
        fork, rest, end = run(tiny_client, fork_of(start, step))
        assert fork["parent"] == {"id": start["id"], "step": step}
        RunFrame.model_validate(fork["parent"])
        assert timeless(rest) == timeless(steps[step:])
        assert fork["changes"] == changes_of(steps[:step])
        assert (end["token_ids"], end["text"], end["finish_reason"]) == (
            done["token_ids"], done["text"], done["finish_reason"],
        )  # fmt: skip
        assert end["usage"]["denoising_steps"] == len(steps) - step
        assert {**end["usage"], "denoising_steps": 0, "forward_passes": 0} == {
            **done["usage"], "denoising_steps": 0, "forward_passes": 0,
        }  # fmt: skip
        assert fork["id"] != start["id"] and fork["prompt_tokens"] == start["prompt_tokens"]
    assert "parent" not in start and "changes" not in start


def test_a_fork_with_every_token_masked_again_is_a_fresh_run(tiny_client):
    start, steps, done = run(tiny_client, {**BODY, "temperature": 0, "steps": 7})
    fork, again, end = run(tiny_client, fork_of(start, 7, remask=list(range(14))))
    assert fork["token_ids"] == start["token_ids"] and fork["changes"] == []
    assert [step["step"] for step in again] == list(range(7, 14))
    assert [change["token_id"] for change in changes_of(again)] == [change["token_id"] for change in changes_of(steps)]
    assert end["token_ids"] == done["token_ids"]


def test_words_are_masked_again_and_written_over_and_the_rest_stays(tiny_client):
    start, steps, done = run(tiny_client, BODY)
    fork, rest, end = run(tiny_client, fork_of(start, 14, remask=[0, 9], set={"4": [40, 41]}, top_logprobs=1))
    frame = [319, *done["token_ids"][1:4], 40, 41, *done["token_ids"][6:9], 319, *done["token_ids"][10:]]
    assert fork["token_ids"] == frame
    kept = [change for change in changes_of(steps) if change["position"] not in (0, 4, 5, 9)]
    assert fork["changes"] == kept
    assert [(step["step"], step["changes"][0]["position"]) for step in rest] == [(14, 0), (15, 9)]
    assert all(len(change["top_logprobs"]) == 1 for change in changes_of(rest))
    # A fork of it: what was written over it may be masked again, and it inherits what the first run wrote.
    second, more, last = run(tiny_client, fork_of(fork, 15, remask=[4], seed=6))
    assert second["parent"] == {"id": fork["id"], "step": 15}
    first_commit = rest[0]["changes"]
    assert sorted(second["changes"], key=lambda change: change["step"]) == [*kept, *first_commit]
    assert second["token_ids"] == [*end["token_ids"][:4], 319, *end["token_ids"][5:9], 319, *end["token_ids"][10:]]
    assert [step["step"] for step in more] == [15, 16] and 319 not in last["token_ids"]
    assert second["generation_params"]["seed"] == 6


def test_text_is_written_as_text(live_server, demo_tokenizer):
    with httpx.Client(base_url=live_server, timeout=60) as client:
        start, steps, _ = run(client, {"prompt": "Once upon a time", "max_tokens": 16, "ignore_eos": True})
        fork, rest, end = run(client, fork_of(start, len(steps), set={"3": " blue"}, remask=[6, 7]))
    ids = demo_tokenizer.encode_plain(" blue")
    assert end["token_ids"][3 : 3 + len(ids)] == ids
    assert " blue" in end["text"] and len(rest) == 2
    assert [change["text"] for change in fork["changes"]] == [
        change["text"] for change in changes_of(steps) if change["position"] not in (6, 7, *range(3, 3 + len(ids)))
    ]


def test_other_fields_apply_from_the_fork_on_and_absent_ones_are_the_parents(tiny_client):
    start, _, _ = run(tiny_client, {**BODY, "preset": "fast", "top_k": 30, "include_predictions": True})
    fork, rest, _ = run(tiny_client, fork_of(start, 2, temperature=0.3))
    assert fork["generation_params"] == {**start["generation_params"], "temperature": 0.3}
    assert all("predictions" in step for step in rest)
    exact, rest, _ = run(tiny_client, fork_of(start, 2, steps=4, seed=7, include_predictions=False))
    settings = {"steps": 4, "entropy_threshold": None, "cache": "delayed", "seed": 7, "top_k": 30}
    assert settings.items() <= exact["generation_params"].items()
    assert (exact["steps"], len(rest)) == (4, 4)
    assert not any("predictions" in step for step in rest)
    plain, _, _ = run(tiny_client, fork_of(start, 2, preset="exact"))
    assert {"entropy_threshold": None, "cache": "none"}.items() <= plain["generation_params"].items()
    low, _, _ = run(tiny_client, fork_of(start, 2, reasoning_effort="medium"))
    assert {"entropy_threshold": 0.1, "cache": "none"}.items() <= low["generation_params"].items()


def test_a_run_under_way_is_forked_as_far_as_it_was_read_and_goes_on_unharmed(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as url, httpx.Client(base_url=url, timeout=30) as client:
        expected = run(client, BODY)[2]["token_ids"]
        stream_id, _ = read_until(url, 4, BODY)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        # Parked, and then read again by another connection while it is forked.
        assert run(client, fork_of({"id": stream_id}, 4))[2]["token_ids"] == expected
        sampler.gate.clear()
        with client.stream("GET", f"/v1/denoise/{stream_id}") as rest:
            lines = rest.iter_lines()
            assert next(lines) == "id: 0"
            with client.stream("POST", "/v1/denoise", json=fork_of({"id": stream_id}, 3)) as fork:
                sampler.gate.set()
                answers = [fork.read().decode(), "\n".join(["id: 0", *lines])]
        for text in answers:
            assert replay(events_of(httpx.Response(200, text=text)))[2]["token_ids"] == expected
        late = client.post("/v1/denoise", json=fork_of({"id": stream_id}, 15))
        assert error_of(late)["message"] == "fork.step is 15; this run has the frames 0 to 14"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"step": 15}, "fork.step", "fork.step is 15; this run has the frames 0 to 13"),
        ({"step": -1}, "fork", "fork.step"),
        ({"step": "1"}, "fork", "fork.step"),
        ({"step": None}, "fork", "fork.step is missing"),
        ({"remask": [3, 3]}, "fork.remask", "position 3; no position may be changed twice"),
        ({"remask": [14]}, "fork.remask", "the response has positions 0 to 13"),
        ({"remask": [-1]}, "fork", "fork.remask.0 is -1"),
        ({"remask": [1] * 2**17 + [1]}, "fork", "fork.remask"),
        ({"remask": [6]}, "fork.remask", "position 6; tokens fixed from the start cannot be changed"),
        ({"set": {"12": [1, 2, 3]}}, "fork.set.12", "3 tokens from position 12 on; the response has positions 0 to 13"),
        ({"set": {"5": [1, 2]}}, "fork.set.5", "fixed from the start"),
        ({"set": {"3": [1, 2], "4": [1]}}, "fork.set.4", "changed twice"),
        ({"set": {"3": [1]}, "remask": [3]}, "fork.remask", "changed twice"),
        ({"set": {"3": [319]}}, "fork.set.3", "mask id"),
        ({"set": {"3": [400]}}, "fork.set.3", "from 0 to 319"),
        ({"set": {"3": " blue"}}, "fork.set.3", "no tokenizer"),
        ({"set": {"3": []}}, "fork", "fork.set.3"),
        ({"set": {"3": ""}}, "fork", "fork.set.3"),
        ({"set": {"x": [1]}}, "fork", "'x'"),
        ({"sets": {}}, "fork", "fork.sets is not a field of this endpoint; did you mean set?"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_wrong_fork_is_refused_by_the_path_of_its_field(tiny_client, kept, fields, param, message):
    answer = tiny_client.post("/v1/denoise", json={"fork": {"id": kept, "step": 9, **fields}})
    assert (answer.status_code, error_of(answer)["param"]) == (400, param), error_of(answer)
    assert message in error_of(answer)["message"]


@pytest.fixture(scope="module")
def kept(tiny_client):
    """The id of a run that is kept."""
    return run(tiny_client, {**BODY, "constraints": {"6": [40]}, "steps": 14})[0]["id"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 5}, "max_tokens"),
        ({"block_length": 6}, "block_length"),
        ({"method": "fixed_length"}, "method"),
        ({"constraints": {"1": [4]}}, "constraints"),
        ({"step": 3}, "step"),
        ({"prompt": [1]}, "fork"),
        ({"canvas": [{"mask": 3}]}, "fork"),
        ({"add_generation_prompt": False}, "add_generation_prompt"),
        ({"min_tokens": 15}, "min_tokens"),
        ({"stop": "x"}, "stop"),
        ({"steps": 2}, "steps"),
        ({"steps": 5, "confidence_threshold": 0.9}, "steps"),
        ({"cache_refresh_interval": 2}, "cache_refresh_interval"),
    ],
    ids=str,
)
def test_what_a_fork_cannot_change_is_refused_by_name(tiny_client, kept, fields, param):
    answer = tiny_client.post("/v1/denoise", json={"fork": {"id": kept, "step": 2}, **fields})
    assert (answer.status_code, error_of(answer)["param"]) == (400, param), error_of(answer)


def test_a_run_that_is_not_kept_is_not_found(tiny_client):
    for name in ("denoise-0", "x" * 10_000):
        answer = tiny_client.post("/v1/denoise", json={"fork": {"id": name, "step": 0}})
        error = error_of(answer)
        assert (answer.status_code, error["param"], error["code"]) == (404, "fork.id", "stream_not_found")
        assert len(error["message"]) < 400


def test_runs_of_another_key_are_neither_forked_nor_resumed(tiny):
    with serving(tiny, api_key=["one", "two"]) as url:
        clients = [
            httpx.Client(base_url=url, timeout=30, headers={"Authorization": f"Bearer {key}"}) for key in ("one", "two")
        ]
        start, _, _ = run(clients[0], BODY)
        until(lambda: clients[0].get(f"/v1/denoise/{start['id']}").status_code == 200)
        assert run(clients[0], fork_of(start, 3))[1]
        for answer in (
            clients[1].post("/v1/denoise", json=fork_of(start, 3)),
            clients[1].post("/v1/denoise", json={**fork_of(start, 3), "steps": 0}),
            clients[1].get(f"/v1/denoise/{start['id']}"),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (404, "stream_not_found")
        for client in clients:
            client.close()


def gaps_of(token_ids):
    """A frame as segments and gaps."""
    return [{"mask": 1} if token_id == 319 else [token_id] for token_id in token_ids]


def frame_of(start, steps, number):
    canvas = list(start["token_ids"])
    for change in changes_of(steps[:number]):
        canvas[change["position"]] = change["token_id"]
    return canvas


@pytest.mark.parametrize("settings", [{}, {"confidence_threshold": 0.01}, {"remasking": "random"}], ids=str)
def test_a_frame_that_the_client_sends_goes_on_as_the_run_did(tiny_client, settings):
    """Its committed tokens as segments of a canvas or as constraints, and the number of its step."""
    for body in (CANVAS, BODY):
        start, steps, _ = run(tiny_client, {**body, **settings})
        for number in range(len(steps)):
            frame = frame_of(start, steps, number)
            if "canvas" in body:
                again = {**body, **settings, "canvas": gaps_of(frame), "step": number}
            else:
                pins = {str(at): [token_id] for at, token_id in enumerate(frame) if token_id != 319}
                again = {**body, **settings, "constraints": pins, "step": number}
            fork, rest, _ = run(tiny_client, again)
            assert fork["token_ids"] == frame and "parent" not in fork
            assert timeless(rest) == timeless(steps[number:])


@pytest.mark.parametrize("step", [-1, 2**31, 1.5, "1"])
def test_the_number_of_the_first_step_is_bounded(tiny_client, step):
    answer = tiny_client.post("/v1/denoise", json={**BODY, "step": step})
    assert (answer.status_code, error_of(answer)["param"]) == (400, "step")
