"""The orders in which options are listed."""

import pytest

from llada_core.decisions.orders import MOST_ORDERS, option_orders


@pytest.mark.parametrize("num_options", [2, 3, 4, 7, 26, 255])
@pytest.mark.parametrize("order_averages", range(1, MOST_ORDERS + 1))
def test_orders_are_distinct_permutations_that_begin_with_the_given_one(num_options: int, order_averages: int) -> None:
    orders = option_orders(num_options, order_averages)
    assert orders[0] == tuple(range(num_options))
    assert len(set(orders)) == len(orders) <= order_averages
    assert all(sorted(order) == list(range(num_options)) for order in orders)


@pytest.mark.parametrize("num_options", [2, 3, 8, 26])
@pytest.mark.parametrize("order_averages", [2, 4, 6, 8])
def test_every_option_has_the_same_mean_place(num_options: int, order_averages: int) -> None:
    orders = option_orders(num_options, order_averages)
    means = [sum(order.index(option) for order in orders) / len(orders) for option in range(num_options)]
    assert means == pytest.approx([(num_options - 1) / 2] * num_options)


def test_two_is_the_given_order_and_the_reversed_one() -> None:
    assert option_orders(3, 2) == [(0, 1, 2), (2, 1, 0)]


def test_enough_options_have_as_many_orders_as_are_asked_for() -> None:
    assert all(len(option_orders(8, count)) == count for count in range(1, MOST_ORDERS + 1))
