"""The arithmetic of sizing: cases small enough to work out by hand."""

import re
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from benchmarks.simulation import (
    DAY,
    GPU,
    GPUS,
    LLADA_8B,
    Cluster,
    Job,
    Pass,
    Shape,
    arrivals,
    cached_steps,
    daily_rate,
    linear,
    plain_steps,
    roofline,
)
from benchmarks.sizing import percentiles, replicas_needed, seconds_per_request, settings, shared_cost, simulate_at

SECOND_PER_STEP = linear(1.0, 0.0)
SECOND_PER_TOKEN = linear(0.0, 1.0)


def cluster(num_replicas: int, step_time, **limits: int) -> Cluster:
    return Cluster(
        num_replicas, step_time, **{"max_batch_size": 8, "max_batch_tokens": 100, "max_queue": 100, **limits}
    )


def latencies(cluster: Cluster, *jobs: Job) -> list[float]:
    cluster.run(jobs)
    return [served.latency for served in cluster.served]


def test_a_request_alone_takes_its_steps():
    assert latencies(cluster(1, SECOND_PER_TOKEN), Job(5.0, plain_steps(10, 3))) == [30.0]


def test_requests_that_fit_into_a_step_share_it():
    one, two = Job(0.0, plain_steps(10, 3)), Job(0.5, plain_steps(10, 3))
    # The second joins after the first step; the first leaves after two more, and the last step has the second only.
    assert latencies(cluster(1, SECOND_PER_STEP), one, two) == [3.0, 3.5]


def test_requests_that_do_not_fit_take_turns():
    jobs = [Job(0.0, plain_steps(60, 3)), Job(0.0, plain_steps(60, 3))]
    # The second is admitted after a step of the first, and on a tie the first goes on: 1 1 2 1 2 2.
    assert latencies(cluster(1, SECOND_PER_STEP), *jobs) == [4.0, 6.0]


def test_the_replica_with_the_fewest_requests_is_asked():
    jobs = [Job(0.0, plain_steps(60, 2))] * 4
    assert latencies(cluster(2, SECOND_PER_STEP), *jobs) == [2.0, 2.0, 4.0, 4.0]


def test_a_full_queue_refuses():
    full = cluster(1, SECOND_PER_STEP, max_batch_size=1, max_queue=1)
    assert latencies(full, *[Job(0.0, plain_steps(1, 2))] * 4) == [2.0, 4.0]
    assert full.num_refused == 2


def test_a_replica_is_busy_for_the_arriving_work():
    half = cluster(1, SECOND_PER_STEP)
    half.run(Job(4.0 * number, plain_steps(1, 2)) for number in range(10))
    assert half.utilisation(40.0) == 0.5


def test_a_run_can_be_simulated_with_another_mean_of_its_steps():
    assert simulate_at(0.5, [Job(0.0, plain_steps(1, 4))], SECOND_PER_STEP) == [pytest.approx(2.0)]


def test_the_mean_number_of_requests_is_rate_times_latency():
    random = Random(0)
    times = arrivals(lambda _: 0.4, 0.4, 0.0, 2000.0, random)
    busy = cluster(1, SECOND_PER_STEP, max_batch_size=1)
    busy.run(Job(now, plain_steps(1, 2)) for now in times)
    changes = sorted(
        [(served.job.arrival, 1) for served in busy.served] + [(served.finished, -1) for served in busy.served]
    )
    present, area = 0, 0.0
    for (now, change), (following, _) in pairwise(changes):
        present += change
        area += present * (following - now)
    # Little's law, exactly, since all have left.
    assert area == pytest.approx(sum(served.latency for served in busy.served))
    # Pollaczek and Khinchine: two seconds of service at 80 % wait for four more on average.
    mean = sum(served.latency for served in busy.served) / len(busy.served)
    assert mean == pytest.approx(2 + 0.8 * 2 / (2 * 0.2), rel=0.25)


def test_a_day_has_its_requests_and_its_peak():
    times = list(arrivals(lambda t: daily_rate(0.5, 0.8, t), 0.9, 0.0, DAY, Random(0)))
    assert len(times) == pytest.approx(0.5 * DAY, rel=0.02)
    assert sum(abs(now - DAY / 2) < 1800 for now in times) == pytest.approx(0.9 * 3600, rel=0.05)
    assert daily_rate(0.5, 0.8, 0.0) == pytest.approx(0.1)


def test_the_formula():
    assert replicas_needed(100.0, 1.5, 0.75) == 200
    assert seconds_per_request(plain_steps(10, 4), linear(1.0, 0.1), together=2) == 4 * (1.0 + 2.0) / 2
    assert percentiles(range(1, 100)) == (50, 95, 99)


def test_the_documents_numbers_of_gpus_are_the_formulas():
    text = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| [^|]+ \| (\d+)% \| (\d+) \|", text, flags=re.MULTILINE)
    assert len(rows) == 6
    for name, requests, busy, number in rows:
        cost = shared_cost(settings(128)[name](256 + 128), roofline(LLADA_8B, GPUS["H100"]))
        assert f"{1 / cost:.1f}" == requests
        assert replicas_needed(1_000_000 * 5 / DAY * 1.8, cost, int(busy) / 100) == int(number)


def test_llada_8b_has_its_parameters():
    embeddings = LLADA_8B.vocabulary * LLADA_8B.width
    assert LLADA_8B.block_weights + LLADA_8B.head_weights + embeddings == pytest.approx(8.02e9, rel=0.001)
    assert LLADA_8B.cache_bytes == 524_288


def test_a_step_on_a_gpu_takes_the_longer_of_arithmetic_and_traffic():
    shape = Shape(layers=1, width=10, mlp_width=20, vocabulary=5)
    weights = 4 * 100 + 3 * 200 + 50
    slow_memory = roofline(shape, GPU(operations=1e30, bandwidth=2 * weights, memory=0))
    assert slow_memory([Pass(1, 1)]) == pytest.approx(1 / 0.7 + 0.004)
    operations = 2 * 7 * 1000 + 4 * 7 * 9 * 10 + 2 * 32 * 50
    slow_arithmetic = roofline(shape, GPU(operations=operations, bandwidth=1e30, memory=0))
    assert slow_arithmetic([Pass(7, 9)]) == pytest.approx(2.004)


def test_a_cached_block_computes_the_canvas_once():
    assert cached_steps(100, 64, tokens_per_step=16) == (Pass(100, 100), Pass(32, 100)) * 2
