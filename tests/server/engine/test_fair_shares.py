"""Clients have equal shares of places, steps, computations and queue."""

import pytest

from server.engine.errors import QueueFullError
from tests.server.engine.scheduling import StandIn, cached, scheduler_with, step_of


def test_a_free_place_goes_to_the_client_with_the_fewest(request_of):
    scheduler = scheduler_with(max_batch_size=2, max_queue=8)
    greedy = [request_of(10, "greedy") for _ in range(6)]
    scheduler.add(greedy)
    assert step_of(scheduler) == greedy[:2]
    polite = request_of(10, "polite")
    scheduler.add([polite])
    # Between two steps the newest of the greedy one's makes way, and waits before its others.
    assert step_of(scheduler) == [greedy[0], polite]
    scheduler.remove(polite)
    assert set(step_of(scheduler)) == {greedy[0], greedy[1]}
    scheduler.remove(greedy[0])
    assert set(step_of(scheduler)) == {greedy[1], greedy[2]}


def test_clients_have_equal_shares_of_the_places_whatever_they_ask_for(request_of):
    scheduler = scheduler_with(max_batch_size=8, max_queue=64, max_batch_tokens=1000)
    counts = {"a": 20, "b": 9, "c": 1}
    for client, count in counts.items():
        scheduler.add([request_of(10, client) for _ in range(count)])
    clients = [request.client for request in step_of(scheduler)]
    assert {client: clients.count(client) for client in counts} == {"a": 4, "b": 3, "c": 1}


def test_a_request_that_made_way_gives_up_its_caches_and_goes_on(request_of):
    scheduler = scheduler_with(max_batch_size=2, kv_cache_memory=100)
    first, second = request_of(10, "greedy"), request_of(10, "greedy", cache="dual")
    second.cache_bytes = 60
    scheduler.add([first, second])
    step_of(scheduler)
    second.canvas.caches = ("keys and values",)
    scheduler.add([request_of(10, "polite")])
    step_of(scheduler)
    assert second.canvas.caches is None and scheduler.cache_bytes == 0


def test_a_request_that_a_thread_steps_does_not_make_way(request_of):
    scheduler = scheduler_with(max_batch_size=2, max_batch_tokens=10, model_threads=2)
    greedy = [request_of(10, "greedy") for _ in range(2)]
    scheduler.add(greedy)
    assert scheduler.schedule().requests == [greedy[0]]
    polite = request_of(10, "polite")
    scheduler.add([polite])
    assert scheduler.schedule().requests == [polite]
    assert not scheduler.is_running(greedy[1]) and scheduler.is_running(greedy[0])


def test_who_waits_for_memory_keeps_others_from_it_but_not_from_places(request_of):
    scheduler = scheduler_with(kv_cache_memory=100)
    running, large, small = (
        cached(request_of(10, client), cache_bytes) for client, cache_bytes in (("a", 60), ("b", 60), ("c", 10))
    )
    plain = request_of(10, "d")
    scheduler.add([running])
    step_of(scheduler)
    for request in (large, small, plain):
        scheduler.add([request])
    # The small cache would fit, but if such were let in the large one might wait for ever.
    assert set(step_of(scheduler)) == {running, plain}
    scheduler.remove(running)
    assert set(step_of(scheduler)) == {large, small, plain}


def test_a_step_holds_the_first_of_every_client_before_the_second_of_any(request_of):
    scheduler = scheduler_with(max_batch_tokens=40, max_queue=64)
    greedy = [request_of(10, "greedy") for _ in range(7)]
    scheduler.add(greedy)
    polite = request_of(10, "polite")
    scheduler.add([polite])
    rounds = [step_of(scheduler) for _ in range(7)]
    assert all(polite in batch and len(batch) == 4 for batch in rounds)
    # The others' turns go round.
    assert {request for batch in rounds[:3] for request in batch} == {*greedy, polite}


def test_where_a_step_holds_a_single_request_clients_take_turns(request_of):
    scheduler = scheduler_with(max_batch_tokens=10)
    scheduler.add([request_of(10, "greedy") for _ in range(3)])
    scheduler.add([request_of(10, "polite")])
    clients = [step_of(scheduler)[0].client for _ in range(8)]
    assert clients[:2] in (["greedy", "polite"], ["polite", "greedy"])
    assert clients == clients[:2] * 4


def test_computations_of_clients_take_turns(request_of):
    scheduler = scheduler_with()
    greedy, polite = [StandIn("greedy") for _ in range(3)], StandIn("polite")
    for work in (*greedy, polite):
        scheduler.add_work(work)
    order = []
    for _ in range(6):
        work = scheduler.schedule().work
        order.append(work)
        scheduler.release_work(work, 10)
    assert order == [greedy[0], polite, greedy[1], polite, greedy[2], polite]


def test_many_computations_of_one_client_get_no_more_than_another_clients_request(request_of):
    scheduler = scheduler_with(max_queue=100)
    scheduler.add([request_of(25, "polite")])
    for _ in range(100):
        scheduler.add_work(StandIn("greedy"))
    has_turn = []
    for _ in range(8):
        turn = scheduler.schedule()
        has_turn.append(turn.work is not None)
        scheduler.release(turn.requests)
        if turn.work is not None:
            scheduler.release_work(turn.work, 100)  # as many as four steps of the request
    assert has_turn == [True, False, False, True, False, False, False, True]


def test_a_computation_gets_as_much_as_all_requests_of_another_client(request_of):
    scheduler, work = scheduler_with(), StandIn("polite")
    scheduler.add([request_of(25, "greedy") for _ in range(4)])
    scheduler.add_work(work)
    for _ in range(3):
        turn = scheduler.schedule()
        assert turn.work is work
        scheduler.release(turn.requests)
        scheduler.release_work(work, 100)


def test_a_full_queue_lets_in_those_who_have_less_than_their_share_of_it(request_of):
    scheduler = scheduler_with(max_batch_size=1, max_queue=4)
    scheduler.add([request_of(10, "greedy") for _ in range(5)])
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10, "greedy")])
    scheduler.add([request_of(10, "polite") for _ in range(2)])
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10, "polite")])
    # However many clients come, twice the queue is the end.
    for number in range(2):
        scheduler.add([request_of(10, f"other {number}")])
    with pytest.raises(QueueFullError):
        scheduler.add([request_of(10, "last")])
