import pytest

from llada_core.sampling import Canvas, GenerationParams
from server.mailbox import Mailbox
from server.scheduler import QueueFullError, Request, Scheduler


@pytest.fixture
def request_of(tiny):
    def request_of(length: int, **params: object) -> Request:
        params = GenerationParams(gen_length=length - 1, **params)
        return Request(
            Canvas.for_prompt([1], params, config=tiny.config, special_tokens=tiny.special_tokens), Mailbox()
        )

    return request_of


def scheduler_with(**limits: int) -> Scheduler:
    return Scheduler(**{"max_batch_size": 8, "max_batch_tokens": 100, "max_queue": 4, **limits})


def test_requests_are_admitted_in_the_order_they_came(request_of):
    scheduler = scheduler_with(max_batch_size=2)
    first, second, third = requests = [request_of(10) for _ in range(3)]
    scheduler.add(requests)
    assert scheduler.schedule() == [first, second]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    scheduler.remove(first)
    assert set(scheduler.schedule()) == {second, third}
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)


def test_a_request_that_arrives_takes_part_in_the_next_step(request_of):
    scheduler = scheduler_with()
    long, short = request_of(90), request_of(10)
    scheduler.add([long])
    assert scheduler.schedule() == [long]
    scheduler.add([short])
    assert set(scheduler.schedule()) == {long, short}


def test_requests_take_turns_when_a_step_cannot_hold_them_all(request_of):
    scheduler = scheduler_with(max_batch_tokens=100)
    requests = [request_of(60) for _ in range(3)]
    scheduler.add(requests)
    rounds = [scheduler.schedule() for _ in range(6)]
    assert all(len(batch) == 1 for batch in rounds)
    assert [batch[0] for batch in rounds] == requests * 2


def test_nobody_waits_for_anothers_whole_generation(request_of):
    scheduler = scheduler_with(max_batch_tokens=100)
    requests = [request_of(length) for length in (90, 30, 60, 20, 100, 10)]
    scheduler.add(requests)
    last_seen = dict.fromkeys(requests, -1)
    for number in range(60):
        for request in scheduler.schedule():
            assert number - last_seen[request] <= len(requests)
            last_seen[request] = number
    assert min(last_seen.values()) > 50


def test_one_that_does_not_fit_is_passed_over_and_comes_first_later(request_of):
    scheduler = scheduler_with(max_batch_tokens=100)
    big, bigger, small = request_of(60), request_of(70), request_of(30)
    scheduler.add([big, bigger, small])
    assert scheduler.schedule() == [big, small]
    assert scheduler.schedule()[0] is bigger


def test_a_request_larger_than_the_budget_still_runs_alone(request_of):
    scheduler = scheduler_with(max_batch_tokens=50)
    scheduler.add([request_of(80)])
    assert len(scheduler.schedule()) == 1


def test_guidance_counts_twice(request_of):
    assert request_of(40, cfg_scale=1.0).num_tokens == 80
    assert request_of(40, method="semi_autoregressive_origin", block_length=8).num_tokens == 9


def test_the_queue_is_bounded_and_a_group_is_admitted_whole_or_not_at_all(request_of):
    scheduler = scheduler_with(max_batch_size=2, max_queue=2)
    scheduler.add([request_of(10) for _ in range(3)])
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10), request_of(10)])
    scheduler.add([request_of(10)])
    scheduler.schedule()
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10)])


def test_a_removed_request_is_gone_from_queue_and_batch(request_of):
    scheduler = scheduler_with(max_batch_size=1)
    running, waiting = request_of(10), request_of(10)
    scheduler.add([running, waiting])
    scheduler.schedule()
    scheduler.remove(waiting)
    scheduler.remove(running)
    scheduler.remove(running)
    assert scheduler.schedule() == []
