"""Rules on the sizes of a mixture of experts, by the names of the fields that configs share, and whether they hold."""

from collections.abc import Iterator

# Every expert has three tensors, whose names are checked: a file may come from strangers.
MOST_EXPERTS = 1 << 17


def mixture_rules(num_layers: int, num_experts: int) -> Iterator[tuple[str, bool]]:
    """Yield the rule on the number of all experts."""
    yield (
        f"num_hidden_layers × num_experts ({num_layers} × {num_experts}) must be at most {MOST_EXPERTS:,}",
        num_layers * num_experts <= MOST_EXPERTS,
    )


def group_rules(num_experts: int, num_chosen: int, n_group: int, topk_group: int) -> Iterator[tuple[str, bool]]:
    """Yield the rules on experts that are chosen by groups."""
    size = num_experts // n_group
    yield (
        f"n_group ({n_group}) must divide num_experts ({num_experts}) into groups of at least 2",
        size * n_group == num_experts and size >= 2,
    )
    yield f"topk_group must be at most n_group ({n_group})", topk_group <= n_group
    yield (
        f"num_experts_per_tok ({num_chosen}) must be at most the experts of topk_group groups ({topk_group} × {size})",
        num_chosen <= topk_group * size,
    )
