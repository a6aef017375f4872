"""A description of a network, made from a config, which two interpreters read: the network that can be trained
(`network`) and the packed weights of a CPU (`backends/cpu`).

All networks are pre-norm transformers in which a position sees those after it, all of them or those of its block. A
description says only in what they differ. A tensor has a role in the network; an architecture's table gives its name in
published checkpoints.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llada_core.model.shape import ModelShape


@dataclass(frozen=True, slots=True)
class TensorNames:
    """The published names of an architecture's modules, by the role that each plays.

    Attributes:
        outside: the modules outside the blocks: `embedding`, `final_norm` and `head`.
        blocks: the list of blocks.
        block: the modules of a block, counted from it; in those of an expert, `{}` stands for its number.
        stacks: tensors of a block in which a checkpoint may hold all its experts, [X, rows, columns], and the roles
            whose rows lie one after another in them.
    """

    outside: Mapping[str, str]
    blocks: str
    block: Mapping[str, str]
    stacks: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def tensor(self, role: str, depth: int | None = None) -> str:
        """Return the name of a tensor: in the block `depth` or, without a depth, outside the blocks.

        Args:
            role: the role of a module, for its weight; followed by `.` and the name of another tensor of it, such as
                `bias`, or the number of an expert.
        """
        module, _, part = role.partition(".")
        path = self.outside[module] if depth is None else f"{self.blocks}.{depth}.{self.block[module]}"
        return f"{path.format(part)}.weight" if part.isdigit() else f"{path}.{part or 'weight'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """The rotary embedding of queries and keys.

    Attributes:
        theta: the base of the angles.
        dim: how many features of a head are rotated, from the first on.
        is_float32: rotate in float32 whatever the dtype of the queries; otherwise in theirs, by rounded cosines.
    """

    theta: float
    dim: int
    is_float32: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention of H query heads, which read K key heads of width D.

    Attributes:
        has_head_norms: each query and key is normed before it is rotated, with one weight for all heads.
        is_fused: one map, `query_key_value`, gives the queries of all heads, then their keys, then their values.
        block_length: attention is block-causal (see `PackedTokens`), by default in blocks of this length; None if every
            position sees all.
    """

    num_heads: int
    num_key_value_heads: int
    head_dim: int
    rotary: Rotary
    has_head_norms: bool = False
    is_fused: bool = False
    block_length: int | None = None

    @property
    def widths(self) -> tuple[int, int, int]:
        """The features of all queries, all keys and all values."""
        keys = self.num_key_value_heads * self.head_dim
        return self.num_heads * self.head_dim, keys, keys


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """SwiGLU of `width` hidden features."""

    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A choice of experts in two stages, by sigmoids: the best groups, then the best experts in them (see `routing`).

    Attributes:
        scale: the weights of a token's experts add up to it.
    """

    num_groups: int
    num_chosen: int
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of SwiGLUs, `num_chosen` of which each token goes through (see `routing`).

    Attributes:
        width: the hidden features of each expert.
        shared_width: those of another SwiGLU, through which all tokens go; None if there is none.
        has_bias: the experts' probabilities have a bias, the tensor `expert_bias`.
        groups: how experts are chosen by groups; None if they are chosen among all, by a softmax.
        balance_weight: the weight in training of the loss that balances their load.
    """

    num_experts: int
    num_chosen: int
    width: int
    shared_width: int | None = None
    has_bias: bool = False
    groups: Groups | None = None
    balance_weight: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A network.

    Attributes:
        names: role → published name.
        width: the width of hidden states.
        vocab_size: token ids are below it.
        num_columns: rows of the embedding and columns of the head, at least `vocab_size`.
        max_sequence_length: the longest canvas, prompt included.
        norm_eps: added to the mean square in every norm.
        feed_forwards: the feed-forward of each block, first to last.
        has_tied_head: the head is the embedding.
        biased: the roles of the linear maps that have a bias.
        predicts_next: a token is predicted from the output at the position before it; the first one from its own.
    """

    names: TensorNames
    width: int
    vocab_size: int
    num_columns: int
    max_sequence_length: int
    norm_eps: float
    attention: Attention
    feed_forwards: tuple[FeedForward | Experts, ...]
    has_tied_head: bool
    biased: frozenset[str] = frozenset()
    predicts_next: bool = False

    @property
    def num_layers(self) -> int:
        return len(self.feed_forwards)

    @property
    def shape(self) -> ModelShape:
        """The sizes that the code around the network depends on."""
        return ModelShape(
            num_layers=self.num_layers,
            num_key_value_heads=self.attention.num_key_value_heads,
            head_dim=self.attention.head_dim,
            vocab_size=self.vocab_size,
            max_sequence_length=self.max_sequence_length,
            predicts_next=self.predicts_next,
            block_length=self.attention.block_length,
        )

    @property
    def head_role(self) -> str:
        """The role of the head's tensor."""
        return "embedding" if self.has_tied_head else "head"

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of a checkpoint, by its published name."""
        shapes: dict[str, tuple[int, ...]] = {
            self.names.tensor("embedding"): (self.num_columns, self.width),
            self.names.tensor("final_norm"): (self.width,),
        }
        for depth in range(self.num_layers):
            shapes |= {self.names.tensor(role, depth): shape for role, shape in self.block_shapes(depth).items()}
        if not self.has_tied_head:
            shapes[self.names.tensor("head")] = (self.num_columns, self.width)
        return shapes

    def stacks(self) -> dict[str, list[list[str]]]:
        """Return the tensors in which a checkpoint may hold those of many experts, by their published names.

        Returns:
            For each expert of a stack, the names of the tensors whose rows lie one after another in it.
        """
        return {
            f"{self.names.blocks}.{depth}.{stack}": [
                [self.names.tensor(f"{role}.{expert}", depth) for role in roles]
                for expert in range(feed_forward.num_experts)
            ]
            for depth, feed_forward in enumerate(self.feed_forwards)
            if isinstance(feed_forward, Experts)
            for stack, roles in self.names.stacks.items()
        }

    def adaptable(self) -> tuple[str, ...]:
        """Return the names of the linear maps of blocks that low-rank adapters can be added to.

        Those of experts share a name. The router has none: it chooses experts.
        """
        names: dict[str, None] = {}
        for depth in range(self.num_layers):
            for role, shape in self.block_shapes(depth).items():
                if len(shape) == 2 and role != "router":
                    names[self.names.tensor(role, depth).removesuffix(".weight").rpartition(".")[2]] = None
        return tuple(names)

    def adapter_pattern(self, targets: Sequence[str]) -> str:
        """Return a regular expression for the modules of these names that get adapters: in blocks, never the head."""
        return rf"(.*\.)?{re.escape(self.names.blocks)}\.\d+\.(.*\.)?({'|'.join(targets)})"

    def block_shapes(self, depth: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor of a block, by its role."""
        attention = self.attention
        widths = attention.widths
        inputs = {role: (width, self.width) for role, width in zip(("query", "key", "value"), widths, strict=True)}
        head_norms = {"query_norm": (attention.head_dim,), "key_norm": (attention.head_dim,)}
        shapes: dict[str, tuple[int, ...]] = {
            "attention_norm": (self.width,),
            **({"query_key_value": (sum(widths), self.width)} if attention.is_fused else inputs),
            "attention_out": (self.width, widths[0]),
            **(head_norms if attention.has_head_norms else {}),
            "feed_forward_norm": (self.width,),
            **self._feed_forward_shapes(self.feed_forwards[depth]),
        }
        return shapes | {f"{role}.bias": shapes[role][:1] for role in self.biased & shapes.keys()}

    def _feed_forward_shapes(self, feed_forward: FeedForward | Experts) -> dict[str, tuple[int, ...]]:
        into, out = (feed_forward.width, self.width), (self.width, feed_forward.width)
        if isinstance(feed_forward, FeedForward):
            return {"gate": into, "up": into, "down": out}
        shapes: dict[str, tuple[int, ...]] = {"router": (feed_forward.num_experts, self.width)}
        for expert in range(feed_forward.num_experts):
            shapes |= {f"expert_gate.{expert}": into, f"expert_up.{expert}": into, f"expert_down.{expert}": out}
        if feed_forward.has_bias:
            shapes["mixture.expert_bias"] = (feed_forward.num_experts,)
        if (shared := feed_forward.shared_width) is not None:
            shapes |= {"shared_gate": (shared, self.width), "shared_up": (shared, self.width)}
            shapes["shared_down"] = (self.width, shared)
        return shapes
