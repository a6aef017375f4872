"""The memory that one device needs for a training step, before any weight is allocated.

States are calculated: weights, gradients and AdamW's two moments are float32, 4 + 4 + 8 bytes per trained parameter,
unless the options say otherwise; a weight frozen under LoRA has the dtype of the computation, or 8 or 4 bits.
Activations are measured in `fake_step`. The overhead of DDP and FSDP is calculated too, following the code of
torch.distributed: in FSDP2 each block is a group, the root holds the rest, and gradients are scattered after every
micro-batch.

The estimate leaves out memory that the model does not determine: CUDA's context, the workspaces of NCCL and cuBLAS, and
the allocator's fragmentation, together a few gigabytes on a GPU.
"""

from dataclasses import astuple, dataclass
from typing import Literal

from llada_core.diffusion.loss import RowLoss, cross_entropy
from llada_core.model.config import ModelConfig
from training.options.fields import LoraParams, TrainingOptions
from training.run.fake_step import follow_step, num_quantized, sizes_of, two_blocks
from training.run.optimizer import block_matrices
from training.run.quantized_base import BYTES_PER_WEIGHT
from training.run.start import with_blocks

Strategy = Literal["single", "ddp", "fsdp"]
_FLOAT32, _BFLOAT16 = 4, 2
# Bytes of both moments; in 8 bits they have a scale in float32 for every 256 values. Muon has one, where it is used.
_MOMENTS = {"adamw": 2 * _FLOAT32, "adamw_8bit": 2 * (1 + _FLOAT32 / 256), "muon": 2 * _FLOAT32}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device; they add up to the peak of a step.

    Attributes:
        optimizer: the optimizer's moments, and the weights' average.
        copies: duplicates: autocast's bfloat16 weights, the groups FSDP has gathered, DDP's buckets, and the reference
            that an objective compares with.
        activations: kept by the blocks for backward.
        logits: added by the final norm, the head and the cross-entropy at their peak, in forward or in backward.
        backward: needed beyond `logits` by another moment, mostly one block's backward: temporaries, recomputed
            activations, gradients FSDP has yet to scatter. 0 if the head is the peak, as with a large vocabulary.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int
    backward: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


def estimate_memory(
    config: ModelConfig,
    options: TrainingOptions,
    *,
    rows: int,
    length: int,
    strategy: Strategy,
    world_size: int,
    has_reference: bool = False,
    row_loss: RowLoss = cross_entropy,
) -> MemoryEstimate:
    """The memory of one training step on one of `world_size` devices.

    Args:
        options: decide what is trained and kept, and in which dtypes.
        rows: those that one device computes at once (a micro-batch), of `length` tokens each.
        has_reference: whether the objective holds a frozen copy of the model. Its pass comes first, and keeps nothing.
        row_loss: what the objective takes of the logits at each masked position.
    """
    is_sharded, num_blocks = strategy == "fsdp", config.shape.num_layers
    bfloat16 = options.dtype == "bfloat16"
    sketch = two_blocks(config, options.lora, options.base_dtype)
    sketch.shape = with_blocks(sketch.shape, options)
    everything, trained = sizes_of(sketch), sizes_of(sketch, is_trained=True)
    if options.activation_checkpointing:
        sketch.recompute_blocks()
    step = follow_step(sketch, rows, length, row_loss=row_loss, is_sharded=is_sharded, bfloat16=bfloat16)

    num_trained = trained.total(num_blocks)
    num_frozen = everything.total(num_blocks) - num_trained
    num_shards = world_size if is_sharded else 1
    computed = _BFLOAT16 if bfloat16 else _FLOAT32
    gradients = _FLOAT32 * num_trained // num_shards
    moments = _MOMENTS[options.optimizer] * num_trained
    if options.optimizer == "muon":
        moments -= _FLOAT32 * sum(weight.numel() for weight in block_matrices(sketch)) // 2 * num_blocks
    average = 0 if options.ema_decay is None else _FLOAT32 * num_trained
    frozen = computed * num_frozen
    if options.base_dtype is not None:
        frozen -= round((computed - BYTES_PER_WEIGHT[options.base_dtype]) * num_quantized(sketch) * num_blocks)

    activations = step.first_block + (num_blocks - 1) * step.block
    copies = step.autocast.total(num_blocks)
    head_backward, block_backward, root_again = step.head_backward, step.block_backward, 0
    if options.activation_checkpointing:
        # Of autocast's copies only the head's outlive forward; a block's are made again when it is recomputed.
        head_backward -= copies - step.autocast.root
        block_backward -= copies - step.autocast.block
    logits = max(step.head_forward, head_backward)
    if strategy == "ddp":
        # Gradients move into DDP's buckets with a step's last micro-batch, and are separate until then.
        copies += gradients
    if is_sharded:
        # FSDP keeps the root gathered throughout, and two blocks: the one that computes and the next, prefetched.
        copies = computed * (everything.root + min(2, num_blocks) * everything.block)
        # A block's gradients are scattered in float32 while the next block computes.
        block_backward += _FLOAT32 * trained.block
        # When no activation is alive the root counts again: at first the buffer that gathers it, at last its gradients
        # in float32 and this device's share of them.
        root_again = max(computed * everything.root, _FLOAT32 * (trained.root + trained.root // num_shards))
    if has_reference:
        # Without shards it shares the base of adapters. FSDP keeps its root gathered as well.
        copies += (_FLOAT32 * num_trained + (frozen if is_sharded else 0)) // num_shards
        copies += computed * everything.root if is_sharded else 0
    return MemoryEstimate(
        weights=(frozen + _FLOAT32 * num_trained) // num_shards,
        gradients=gradients,
        optimizer=int(moments + average) // num_shards,
        copies=copies,
        activations=activations,
        logits=logits,
        backward=max(0, max(block_backward, root_again - activations) - logits),
    )


def count_parameters(config: ModelConfig, lora: LoraParams | None = None) -> tuple[int, int]:
    """The number of all parameters, adapters included, and of those that are trained."""
    sketch = two_blocks(config, lora)
    num_blocks = config.shape.num_layers
    return sizes_of(sketch).total(num_blocks), sizes_of(sketch, is_trained=True).total(num_blocks)
