"""The tensor names of published LLaDA checkpoints, by the role each tensor plays in the network.

`ff_out` names both the head and the down projection of every block; the path tells them apart.
"""

from collections.abc import Mapping, Sequence

# The tensors outside the blocks; under weight tying the embedding is the head too.
MODEL_TENSORS: Mapping[str, str] = {"embedding": "wte", "final_norm": "ln_f", "head": "ff_out"}

# The tensors of every block.
BLOCK_TENSORS: Mapping[str, str] = {
    "attention_norm": "attn_norm",
    "query": "q_proj",
    "key": "k_proj",
    "value": "v_proj",
    "attention_out": "attn_out",
    "feed_forward_norm": "ff_norm",
    "gate": "ff_proj",
    "up": "up_proj",
    "down": "ff_out",
}

# The linear maps of a block, which low-rank adapters can be added to.
ADAPTABLE = tuple(name for role, name in BLOCK_TENSORS.items() if not role.endswith("_norm"))


def tensor_name(role: str, depth: int | None = None) -> str:
    """Return the published name of a tensor: in the block `depth` or, without a depth, outside the blocks."""
    if depth is None:
        return f"model.transformer.{MODEL_TENSORS[role]}.weight"
    return f"model.transformer.blocks.{depth}.{BLOCK_TENSORS[role]}.weight"


def adapter_pattern(targets: Sequence[str]) -> str:
    """Return a regular expression for the modules that get adapters: only those in blocks, never the head."""
    return rf".*\.blocks\.\d+\.({'|'.join(targets)})"
