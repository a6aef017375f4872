"""What `/metrics` says of every way in which a request can go."""

import re
import shutil
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.replies import parking
from tests.server.conftest import GatedSampler, serving, until
from tests.server.engine.test_giving_up import FailingSampler

DOCUMENT = Path(__file__).parent.parent.parent.parent / "docs" / "metrics.md"
BODY = {"prompt": [4, 5, 6], "max_tokens": 8, "ignore_eos": True}


def samples(url):
    """The value of each sample; one with labels is named `name{value,value}`."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return {
        sample.name + (f"{{{','.join(sample.labels.values())}}}" if sample.labels else ""): sample.value
        for family in families
        for sample in family.samples
    }


def finished(url):
    """How many generations have ended for each reason."""
    return Counter(
        {
            name.split("{")[1][:-1]: int(value)
            for name, value in samples(url).items()
            if name.startswith("llada_requests_finished_total{") and value
        }
    )


def post(url, body, path="/v1/completions", timeout=30.0):
    return httpx.post(url + path, json=body, timeout=timeout)


def test_every_metric_is_documented_and_every_documented_metric_exists(tiny_url):
    exposed = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(httpx.get(f"{tiny_url}/metrics").text)
    }
    kinds = dict(re.findall(r"^\| `(llada_\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert {name for name in exposed if not name.startswith(("process_", "python_"))} == kinds.keys()
    assert {name for name in exposed if name.startswith("process_")} >= {"process_resident_memory_bytes"}
    types = {f.name: f.type for f in text_string_to_metric_families(httpx.get(f"{tiny_url}/metrics").text)}
    assert all(types[name.removesuffix("_total")] == kind for name, kind in kinds.items())


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: install Debian's prometheus")
def test_promtool_has_no_complaint_about_the_metrics(tiny_url):
    page = httpx.get(f"{tiny_url}/metrics").content
    result = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_every_choice_counts_and_the_histograms_add_up(tiny):
    with serving(tiny, max_batch_size=2) as url:
        assert post(url, {**BODY, "n": 3, "temperature": 1}).status_code == 200
        assert post(url, {**BODY, "stream": True}).status_code == 200
        until(lambda: samples(url)["llada_http_requests_in_flight"] == 1)
        values = samples(url)
    assert values["llada_requests_finished_total{length}"] == 4
    for name in ("queue_seconds", "first_commit_seconds", "request_seconds"):
        assert values[f"llada_{name}_count"] == 4
    assert (
        values["llada_queue_seconds_sum"]
        < values["llada_first_commit_seconds_sum"]
        < values["llada_request_seconds_sum"]
    )
    assert values["llada_prompt_tokens_total"] == 4 * 3
    assert values["llada_completion_tokens_total"] == values["llada_committed_tokens_total"] == 4 * 8
    steps = values["llada_denoising_steps_total"]
    assert steps == values["llada_step_batch_size_sum"] == values["llada_step_committed_tokens_count"] == 4 * 8
    assert values["llada_step_committed_tokens_sum"] == 4 * 8
    # Without a cache a window is the whole canvas: 3 + 8 positions.
    assert values["llada_step_batch_tokens_sum"] == steps * 11
    assert values["llada_step_batch_size_bucket{2.0}"] == values["llada_step_seconds_count"] < steps
    assert values["llada_max_batch_size"] == 2
    assert values["llada_responses_total{/v1/completions,200}"] == 2


def test_a_request_that_waits_for_a_place_has_waited_in_the_queue(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler, max_batch_size=1) as url, ThreadPoolExecutor() as pool:
        sampler.gate.clear()
        answers = [pool.submit(post, url, {**BODY, "max_tokens": 1}) for _ in range(2)]
        until(lambda: samples(url)["llada_requests_waiting"] == 1)
        time.sleep(0.15)
        sampler.gate.set()
        assert all(answer.result().status_code == 200 for answer in answers)
        values = samples(url)
    assert values["llada_queue_seconds_bucket{0.1}"] == 1
    assert values["llada_queue_seconds_count"] == 2
    assert values["llada_first_commit_seconds_bucket{0.1}"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_has_cancelled_all_its_choices(tiny, stream):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as url:
        sampler.gate.clear()
        with pytest.raises(httpx.ReadTimeout):
            post(url, {**BODY, "n": 3, "stream": stream}, timeout=0.3)
        until(lambda: finished(url) == {"cancelled": 3})
        sampler.gate.set()
        until(lambda: samples(url).get("llada_responses_total{/v1/completions,499}") == 1)
        assert "llada_responses_total{/v1/completions,200}" not in samples(url)


@pytest.mark.parametrize("stream", [False, True])
def test_past_the_time_limit_all_choices_of_an_answer_have_timed_out(tiny, stream):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler, request_timeout=0.2) as url:
        sampler.gate.clear()
        assert "not finished within" in post(url, {**BODY, "n": 3, "stream": stream}).text
        until(lambda: finished(url) == {"timeout": 3})
        sampler.gate.set()


@pytest.mark.parametrize("stream", [False, True])
def test_a_failed_step_is_counted_and_its_answer_ends_with_an_error(tiny, stream):
    with serving(tiny, sampler=FailingSampler(tiny)) as url:
        assert "internal error" in post(url, {**BODY, "n": 2, "stream": stream}).text
        until(lambda: finished(url) == {"error": 2})
        values = samples(url)
        # When the first choice has failed, the second may be out of the batch before its own step.
        assert values["llada_failed_steps_total"] in (1, 2)
        assert values["llada_ready"] == 1
        for _ in range(4):
            post(url, BODY)
        values = samples(url)
    assert values["llada_failed_steps_total"] >= 5
    assert values["llada_ready"] == 0


def begin_and_leave(url, body):
    """Read the first step of a stream of `/v1/denoise`, and leave; returns its id."""
    with httpx.stream("POST", f"{url}/v1/denoise", json=body, timeout=30) as response:
        lines = response.iter_lines()
        stream_id = next(line for line in lines if '"id":' in line).split('"id":"')[1].split('"')[0]
        next(line for line in lines if line == "event: step")
    until(lambda: samples(url)["llada_requests_running"] == 0)
    return stream_id


def test_a_stream_that_is_resumed_counts_once_and_its_absence_not_at_all(tiny):
    with serving(tiny) as url:
        began = time.monotonic()
        stream_id = begin_and_leave(url, {**BODY, "max_tokens": 128})
        assert finished(url) == {}
        time.sleep(1)
        until(lambda: httpx.get(f"{url}/v1/denoise/{stream_id}", timeout=30).text.endswith("\n\n"))
        until(lambda: finished(url) == {"length": 1})
        took = time.monotonic() - began
        httpx.get(f"{url}/v1/denoise/{stream_id}", timeout=30)  # a third time: only what was
        values = samples(url)
    assert finished_count(values) == 1
    assert values["llada_request_seconds_sum"] < took - 1
    assert values["llada_first_commit_seconds_count"] == 1
    assert values["llada_responses_total{/v1/denoise,499}"] == 1


def finished_count(values):
    return sum(value for name, value in values.items() if name.startswith("llada_requests_finished_total{"))


def test_a_stream_to_which_nobody_comes_back_is_cancelled_when_its_minute_is_over(tiny, monkeypatch):
    monkeypatch.setattr(parking, "PARKING_SECONDS", 0.1)
    with serving(tiny) as url:
        begin_and_leave(url, {**BODY, "max_tokens": 128})
        until(lambda: finished(url) == {"cancelled": 1})


def test_scores_are_counted(tiny):
    with serving(tiny) as url:
        body = {"prompt": [101, 102], "completion": [103, 104, 105], "mc_num": 4}
        assert post(url, body, "/v1/score").status_code == 200
        values = samples(url)
    assert values["llada_scored_tokens_total"] == 3
    # Four draws, each through the model with its prompt.
    assert values["llada_likelihood_model_tokens_total"] == 4 * 5
    assert values["llada_denoising_steps_total"] == 0


def test_a_constraint_is_compiled_and_counted_once_for_all_requests(demo, demo_tokenizer):
    body = {"prompt": "Yes?", "max_tokens": 4, "structured_outputs": {"choice": ["yes", "no"]}}
    with serving(demo, demo_tokenizer) as url:
        for _ in range(3):
            assert post(url, body).status_code == 200
        assert samples(url)["llada_constraint_compile_seconds_count"] == 1


def test_an_answer_that_its_constraints_fix_is_finished_without_a_step(tiny):
    with serving(tiny) as url:
        body = {"prompt": [1], "max_tokens": 2, "constraints": {"0": [5, 6]}}
        assert "event: done" in post(url, body, "/v1/denoise").text
        until(lambda: finished_count(samples(url)) == 1)
        assert samples(url)["llada_denoising_steps_total"] == 0


def test_build_and_model_are_named(tiny_url):
    facts = {
        family.name: family.samples[0].labels
        for family in text_string_to_metric_families(httpx.get(f"{tiny_url}/metrics").text)
        if family.name in ("llada_build_info", "llada_model_info")
    }
    assert facts["llada_build_info"]["version"] == version("llada")
    model = {"model": "tiny", "dtype": "float32", "device": "cpu", "quantization": "none"}
    assert facts["llada_model_info"] == model
