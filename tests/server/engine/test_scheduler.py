import time

import pytest

from server.engine.errors import CacheTooLargeError, QueueFullError
from tests.server.engine.scheduling import StandIn, cached, scheduler_with, step_of


def test_requests_are_admitted_in_the_order_they_came(request_of):
    scheduler = scheduler_with(max_batch_size=2)
    first, second, third = requests = [request_of(10) for _ in range(3)]
    scheduler.add(requests)
    assert step_of(scheduler) == [first, second]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    scheduler.remove(first)
    assert set(step_of(scheduler)) == {second, third}
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)


def test_a_request_that_arrives_takes_part_in_the_next_step(request_of):
    scheduler = scheduler_with()
    long, short = request_of(90), request_of(10)
    scheduler.add([long])
    assert step_of(scheduler) == [long]
    scheduler.add([short])
    assert set(step_of(scheduler)) == {long, short}


def test_requests_take_turns_when_a_step_cannot_hold_them_all(request_of):
    scheduler = scheduler_with(max_batch_tokens=100)
    requests = [request_of(60) for _ in range(3)]
    scheduler.add(requests)
    rounds = [step_of(scheduler) for _ in range(6)]
    assert all(len(batch) == 1 for batch in rounds)
    assert [batch[0] for batch in rounds] == requests * 2


def test_nobody_waits_for_anothers_whole_generation(request_of):
    scheduler = scheduler_with(max_batch_tokens=100)
    requests = [request_of(length) for length in (90, 30, 60, 20, 100, 10)]
    scheduler.add(requests)
    last_seen = dict.fromkeys(requests, -1)
    for number in range(60):
        for request in step_of(scheduler):
            assert number - last_seen[request] <= len(requests)
            last_seen[request] = number
    assert min(last_seen.values()) > 50


def test_newcomers_do_not_starve_those_that_wait_for_their_turn(request_of):
    scheduler = scheduler_with(max_batch_tokens=50)
    long = request_of(45)
    scheduler.add([long])
    stepped = 0
    for _ in range(20):
        newcomer = request_of(45)
        scheduler.add([newcomer])
        for request in step_of(scheduler):
            if request is long:
                stepped += 1
            else:
                scheduler.remove(request)
    assert stepped >= 5


def test_a_request_that_does_not_fit_is_passed_over_and_comes_first_later(request_of):
    scheduler = scheduler_with(max_batch_tokens=100)
    big, bigger, small = request_of(60), request_of(70), request_of(30)
    scheduler.add([big, bigger, small])
    assert step_of(scheduler) == [big, small]
    assert step_of(scheduler)[0] is bigger


def test_a_request_larger_than_the_budget_still_runs_alone(request_of):
    scheduler = scheduler_with(max_batch_tokens=50)
    scheduler.add([request_of(80)])
    assert len(step_of(scheduler)) == 1


def test_guidance_counts_twice(request_of):
    assert request_of(40, cfg_scale=1.0).num_tokens == 80
    assert request_of(40, method="semi_autoregressive_origin", block_length=8).num_tokens == 9


def test_the_queue_is_bounded_and_a_group_is_admitted_whole_or_not_at_all(request_of):
    scheduler = scheduler_with(max_batch_size=2, max_queue=2)
    scheduler.add([request_of(10) for _ in range(3)])
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10), request_of(10)])
    scheduler.add([request_of(10)])
    step_of(scheduler)
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10)])


def test_a_removed_request_is_gone_from_queue_and_batch(request_of):
    scheduler = scheduler_with(max_batch_size=1)
    running, waiting = request_of(10), request_of(10)
    scheduler.add([running, waiting])
    step_of(scheduler)
    scheduler.remove(waiting)
    scheduler.remove(running)
    scheduler.remove(running)
    assert step_of(scheduler) == []


def test_a_request_that_a_thread_steps_is_left_to_it(request_of):
    scheduler = scheduler_with(model_threads=2)
    first, second, third = requests = [request_of(10) for _ in range(3)]
    scheduler.add(requests)
    # At most two of three for each thread, so that none is idle while another has several.
    assert scheduler.schedule().requests == [first, second]
    assert scheduler.schedule().requests == [third]
    assert scheduler.schedule() is None
    scheduler.release([first, second])
    assert scheduler.schedule().requests == [first, second]


def test_a_request_that_comes_back_during_its_step_waits_for_the_step_to_end(request_of):
    scheduler = scheduler_with(model_threads=2)
    request = request_of(10)
    scheduler.add([request])
    batch = scheduler.schedule().requests
    scheduler.remove(request)
    scheduler.add([request])
    assert scheduler.schedule() is None
    scheduler.release(batch)
    assert scheduler.schedule().requests == [request]


def test_caches_bound_who_is_admitted_and_order_is_kept(request_of):
    scheduler = scheduler_with(kv_cache_memory=100)
    first, second, third = cached(request_of(10), 60), cached(request_of(10), 60), request_of(10)
    scheduler.add([first, second, third])
    # The third needs no cache, but it came after the second.
    assert step_of(scheduler) == [first]
    assert scheduler.cache_bytes == 60
    scheduler.remove(first)
    assert set(step_of(scheduler)) == {second, third}


def test_a_cache_larger_than_the_memory_for_all_is_refused(request_of):
    scheduler = scheduler_with(kv_cache_memory=100)
    with pytest.raises(CacheTooLargeError) as refused:
        scheduler.add([request_of(10), cached(request_of(10), 101)])
    assert (refused.value.needed, refused.value.available) == (101, 100)
    assert scheduler.num_waiting == 0


def test_a_request_that_leaves_gives_up_its_caches_but_not_during_its_step(request_of):
    scheduler = scheduler_with(kv_cache_memory=100)
    idle, stepping = cached(request_of(10), 10), cached(request_of(10), 10)
    scheduler.add([idle, stepping])
    batch = scheduler.schedule().requests
    scheduler.release([idle])
    scheduler.remove(idle)
    scheduler.remove(stepping)
    assert (idle.canvas.caches, stepping.canvas.caches) == (None, ("keys and values",))
    scheduler.release(batch)
    assert stepping.canvas.caches is None


def test_a_work_alone_has_every_turn(request_of):
    scheduler, work = scheduler_with(), StandIn()
    scheduler.add_work(work)
    for _ in range(3):
        turn = scheduler.schedule()
        assert (turn.requests, turn.work) == ([], work)
        # A second thread finds nothing to do meanwhile.
        assert scheduler.schedule() is None
        scheduler.release_work(work, 1000)


def test_a_work_gets_as_many_tokens_as_each_request(request_of):
    scheduler, work = scheduler_with(), StandIn()
    scheduler.add([request_of(25), request_of(25)])
    scheduler.add_work(work)
    has_turn = []
    for _ in range(8):
        turn = scheduler.schedule()
        has_turn.append(turn.work is work)
        scheduler.release(turn.requests)
        if turn.work is not None:
            scheduler.release_work(work, 100)  # as many as four steps of one request
    # Every fourth step; the first part came before the work had earned it.
    assert has_turn == [True, False, False, True, False, False, False, True]


@pytest.mark.parametrize("size", [40, 60])
def test_a_work_waits_for_memory_that_requests_have_and_no_other_may_take_it_first(request_of, size):
    scheduler, work = scheduler_with(kv_cache_memory=100), StandIn(cache_bytes=50)
    first, second, without = cached(request_of(10), 60), cached(request_of(10), size), request_of(10)
    scheduler.add([first])
    assert step_of(scheduler) == [first]
    scheduler.add_work(work)
    scheduler.add([second, without])
    turn = scheduler.schedule()
    # The second of 40 bytes would have room, but the work came before it.
    assert (set(turn.requests), turn.work) == ({first}, None)
    scheduler.release(turn.requests)
    scheduler.remove(first)
    turn = scheduler.schedule()
    assert (set(turn.requests), turn.work) == ({second, without} if size == 40 else set(), work)
    assert scheduler.cache_bytes == (90 if size == 40 else 50)
    scheduler.release(turn.requests)
    scheduler.release_work(work, 0)
    # Then it is the turn of the second, whatever the work needs next.
    turn = scheduler.schedule()
    assert (set(turn.requests), turn.work) == ({second, without}, work if size == 40 else None)


def test_a_work_has_its_memory_during_its_turn_only(request_of):
    scheduler, works = scheduler_with(kv_cache_memory=100), [StandIn(client, cache_bytes=60) for client in "ab"]
    for work in works:
        scheduler.add_work(work)
    assert scheduler.schedule().work is works[0]
    # A second thread may not compute the other work meanwhile, but one that needs no memory.
    assert scheduler.schedule() is None
    light = StandIn("c")
    scheduler.add_work(light)
    assert scheduler.schedule().work is light
    # Forgotten, it still has its memory until its part is over.
    scheduler.clear()
    assert scheduler.cache_bytes == 60
    scheduler.release_work(works[0], 10)
    assert scheduler.cache_bytes == 0


def test_a_work_that_nobody_waits_for_needs_no_memory(request_of):
    scheduler, work = scheduler_with(kv_cache_memory=100), StandIn(cache_bytes=60, is_wanted=False)
    request = cached(request_of(10), 60)
    scheduler.add([request])
    scheduler.add_work(work)
    turn = scheduler.schedule()
    assert (turn.requests, turn.work) == ([request], work)


def test_a_work_that_needs_more_than_the_memory_for_all_is_refused():
    scheduler = scheduler_with(kv_cache_memory=100)
    with pytest.raises(CacheTooLargeError) as refused:
        scheduler.add_work(StandIn(cache_bytes=101))
    assert (refused.value.needed, refused.value.available, refused.value.field) == (101, 100, None)
    assert scheduler.num_running == 0


def test_a_work_that_is_over_has_no_further_turn_and_makes_room(request_of):
    scheduler, work = scheduler_with(max_batch_size=1, max_queue=0), StandIn()
    scheduler.add_work(work)
    assert scheduler.num_running == 1
    with pytest.raises(QueueFullError):
        scheduler.add_work(StandIn())
    scheduler.schedule()
    scheduler.release_work(work, None)
    assert (scheduler.num_running, scheduler.schedule()) == (0, None)


def test_clearing_forgets_works_even_during_their_turn_and_frees_caches(request_of):
    scheduler, work = scheduler_with(kv_cache_memory=100), StandIn()
    request = cached(request_of(10), 10)
    scheduler.add([request])
    scheduler.add_work(work)
    turn = scheduler.schedule()
    assert scheduler.clear() == ([request], [work])
    assert request.canvas.caches is not None
    scheduler.release(turn.requests)
    scheduler.release_work(work, 10)
    assert request.canvas.caches is None
    assert scheduler.schedule() is None


def test_without_a_queue_nobody_waits(request_of):
    scheduler = scheduler_with(max_batch_size=1, max_queue=0)
    scheduler.add([request_of(10, "greedy")])
    step_of(scheduler)
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10, "polite")])


def test_the_time_to_try_again_follows_from_queue_and_throughput(request_of, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    scheduler = scheduler_with(max_batch_size=1, max_queue=4)

    def refused() -> int:
        with pytest.raises(QueueFullError) as refusal:
            scheduler.require_room("", 9)
        return refusal.value.retry_seconds

    assert refused() == 1
    requests = [request_of(10) for _ in range(5)]
    scheduler.add(requests)
    for request in requests[:2]:
        step_of(scheduler)
        now += 4
        scheduler.remove(request)
    # Two ended within 4 s, so one needs 2 s, and three wait.
    assert refused() == 2 * 3
    now += 1000
    assert refused() == 60


def test_an_hour_without_requests_does_not_count_as_low_throughput(request_of, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    scheduler = scheduler_with(max_batch_size=1, max_queue=4)
    for _ in range(3):
        request = request_of(10)
        scheduler.add([request])
        step_of(scheduler)
        scheduler.remove(request)
    now += 3600
    scheduler.add([request_of(10) for _ in range(5)])
    with pytest.raises(QueueFullError) as refusal:
        scheduler.add([request_of(10)])
    assert refusal.value.retry_seconds == 1
