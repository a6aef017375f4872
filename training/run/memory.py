"""The memory that one device needs for a training step, before any weight is allocated.

States are calculated: weights, gradients and AdamW's two moments are float32, 4 + 4 + 8 bytes per trained parameter,
unless the options say otherwise; a weight frozen under LoRA has the dtype of the computation, or 8 or 4 bits.
Activations are measured in `fake_step`. The overhead of DDP and FSDP is calculated too, following the code of
torch.distributed: in FSDP2 each block is a group, the root holds the rest, and gradients are scattered after every
micro-batch.

The estimate leaves out memory that the model does not determine: CUDA's context, the workspaces of NCCL and cuBLAS, and
the allocator's fragmentation, together a few gigabytes on a GPU.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Literal

import torch

from llada_core.diffusion.guidance import num_passes
from llada_core.model.config import ModelConfig
from llada_core.model.kv_cache import KVCache
from llada_core.model.shape import ModelShape
from llada_core.sampling.params import EXACT
from llada_core.sampling.sampler import MAX_HEAD_ROWS
from training.options.fields import LoraParams, TrainingOptions
from training.run.fake_step import follow_pass, follow_step, num_quantized, sizes_of, two_blocks
from training.run.optimizer import block_matrices
from training.run.quantized_base import BYTES_PER_WEIGHT
from training.run.start import with_blocks
from training.stages.base import Answering, Work

Strategy = Literal["single", "ddp", "fsdp"]
_TRAINING_ALONE = Work()
# A logit that proposes a token: it, its copy and its probability in float32, and four numbers of 8 bytes of its noise.
_BYTES_PER_PROPOSED = 3 * 4 + 4 * 8
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
        answers: needed beyond all of these while the model writes answers, before a step. 0 if the step is the peak.
    """

    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    logits: int
    backward: int
    answers: int = 0

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
    work: Work = _TRAINING_ALONE,
) -> MemoryEstimate:
    """The memory of one training step on one of `world_size` devices.

    Args:
        options: decide what is trained and kept, and in which dtypes.
        rows: those that one device computes at once (a micro-batch), of `length` tokens each.
        has_reference: whether the objective holds a frozen copy of the model. Its pass comes first, and keeps nothing.
        work: what a stage does with the rows; how many they are is said by `rows`.
    """
    is_sharded, num_blocks = strategy == "fsdp", config.shape.num_layers
    bfloat16 = options.dtype == "bfloat16"
    sketch = two_blocks(config, options.lora, options.base_dtype)
    sketch.shape = with_blocks(sketch.shape, options)
    everything, trained = sizes_of(sketch), sizes_of(sketch, is_trained=True)
    if options.activation_checkpointing:
        sketch.recompute_blocks()
    step = follow_step(sketch, rows, length, row_loss=work.row_loss, is_sharded=is_sharded, bfloat16=bfloat16)

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
    # Without shards a reference shares the base of adapters. FSDP keeps its root gathered as well.
    reference = (_FLOAT32 * num_trained + (frozen if is_sharded else 0)) // num_shards if has_reference else 0
    copies += reference
    if has_reference and is_sharded:
        copies += computed * everything.root
    estimate = MemoryEstimate(
        weights=(frozen + _FLOAT32 * num_trained) // num_shards,
        gradients=gradients,
        optimizer=int(moments + average) // num_shards,
        copies=copies,
        activations=activations,
        logits=logits,
        backward=max(0, max(block_backward, root_again - activations) - logits),
    )
    if work.answering is None:
        return estimate
    # Gradients are gone by then, but for DDP's buckets, and autocast keeps no copies.
    states = estimate.weights + estimate.optimizer + reference + (gradients if strategy == "ddp" else 0)
    if is_sharded:
        # All weights are gathered, the reference's too.
        states += (1 + has_reference) * computed * everything.total(num_blocks)
    sketch = two_blocks(config, options.lora, options.base_dtype)
    follow = partial(follow_pass, sketch, length=length, is_sharded=is_sharded, bfloat16=bfloat16)
    weights_dtype = torch.bfloat16 if bfloat16 and (is_sharded or num_frozen) else torch.float32
    writing = _bytes_of_answers(config.shape, work.answering, length, follow, weights_dtype)
    return replace(estimate, answers=max(0, states + writing - estimate.total))


def _bytes_of_answers(
    shape: ModelShape, answering: Answering, length: int, follow: Callable[[int], int], dtype: torch.dtype
) -> int:
    """The bytes that writing answers takes beyond weights: caches, and a pass or what follows it at the head.

    Args:
        length: positions of a prompt with its answer.
        follow: the bytes of a pass over so many rows.
    """
    params = answering.params
    rows = num_passes(params.cfg_scale) * answering.num_canvases
    caches = 0 if params.cache == "none" else rows * KVCache.num_bytes(shape, length, dtype)
    if params.cache == EXACT:
        # What the answers to a prompt share is kept once more.
        caches *= 2
    proposed = answering.num_canvases * params.effective_block_length * params.active_blocks
    return caches + max(follow(rows), min(proposed, MAX_HEAD_ROWS) * shape.vocab_size * _BYTES_PER_PROPOSED)


def count_parameters(config: ModelConfig, lora: LoraParams | None = None) -> tuple[int, int]:
    """The number of all parameters, adapters included, and of those that are trained."""
    sketch = two_blocks(config, lora)
    num_blocks = config.shape.num_layers
    return sizes_of(sketch).total(num_blocks), sizes_of(sketch, is_trained=True).total(num_blocks)
