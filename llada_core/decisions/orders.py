"""The orders in which options are listed. A model may favour a label or a place; averaging evens that out."""

# The most orders in which one question is asked.
MOST_ORDERS = 8

Order = tuple[int, ...]


def option_orders(num_options: int, order_averages: int) -> list[Order]:
    """Return distinct orders of the options: order[place] is the option listed at that place.

    The orders come in pairs: a rotation of the given order, then its reverse. The rotations are spread evenly over the
    options, and the first is the given order. So 1 is the given order and 2 adds the reversed one. An order that would
    occur twice occurs once: two options have only two orders.

    Args:
        order_averages: the number of orders, 1 to 8.
    """
    num_pairs = (order_averages + 1) // 2
    orders: list[Order] = []
    for pair in range(num_pairs):
        shift = pair * num_options // num_pairs
        rotated = tuple((place + shift) % num_options for place in range(num_options))
        orders += [rotated, rotated[::-1]]
    return list(dict.fromkeys(orders[:order_averages]))
