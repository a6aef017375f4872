"""The tensor names of published LLaDA checkpoints, by the role each tensor plays in the network.

`ff_out` names both the head and the down projection of every block; the path tells them apart.
"""

from llada_core.model.description import TensorNames

NAMES = TensorNames(
    outside={
        "embedding": "model.transformer.wte",
        "final_norm": "model.transformer.ln_f",
        "head": "model.transformer.ff_out",
    },
    blocks="model.transformer.blocks",
    block={
        "attention_norm": "attn_norm",
        "query": "q_proj",
        "key": "k_proj",
        "value": "v_proj",
        "attention_out": "attn_out",
        "feed_forward_norm": "ff_norm",
        "gate": "ff_proj",
        "up": "up_proj",
        "down": "ff_out",
    },
)

# The linear maps of a block.
ADAPTABLE = tuple(name for role, name in NAMES.block.items() if not role.endswith("_norm"))

tensor_name = NAMES.tensor
