"""How much memory one device needs for a training step, before any weight is allocated.

States are arithmetic: weights, gradients and AdamW's two moments are float32, 4 + 4 + 8 bytes per trained parameter; a
weight frozen under LoRA has the dtype of the computation. The rest is counted: a step of the real model, cut to two
blocks, runs forward and backward on fake tensors (shapes without data), and every storage is followed from its
allocation to its release. All blocks are alike, so the second one stands for every further one. The fake device is a
CPU: its attention kernel keeps queries, keys, values, output and log-sum-exp, as those of a GPU do. What DDP and FSDP
add is arithmetic again, after the code of torch.distributed: FSDP2 with each block a group, the rest the root's, and
gradients scattered after every micro-batch.

The figures are a step's worst: every position is masked and meets the head (t near 1), and the gradients of earlier
micro-batches are already there. What the model does not decide is left out: CUDA's context, NCCL's and cuBLAS's
workspaces, the allocator's fragmentation; a few gigabytes on a GPU.
"""

import copy
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.initialization import no_init_weights

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.model.packed import PackedTokens
from training.options.fields import LORA_TARGETS, LoraParams

_FLOAT32, _BFLOAT16 = 4, 2
_ADAMW_MOMENTS = 2 * _FLOAT32


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device; they add up to the peak of a step.

    Attributes:
        copies: what is there twice: autocast's bfloat16 weights, the groups FSDP has gathered, DDP's buckets.
        activations: what the blocks keep for backward.
        logits: what the final norm, the head and the cross-entropy add at their peak, in forward or in backward.
        backward: what another moment, mostly one block's backward, needs beyond `logits`: temporaries, recomputed
            activations, gradients FSDP has yet to scatter. 0 where the head is the peak, as with a large vocabulary.
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
    config: LLaDAConfig,
    *,
    rows: int,
    length: int,
    strategy: Literal["single", "ddp", "fsdp"],
    world_size: int,
    bfloat16: bool,
    activation_checkpointing: bool,
    lora_r: int | None = None,
    lora_target_modules: Sequence[str] = LORA_TARGETS,
) -> MemoryEstimate:
    """The memory of one training step on one of `world_size` devices.

    Args:
        rows: samples that one device computes at once (a micro-batch), of `length` tokens each.
        bfloat16: compute in bfloat16; what is trained stays float32.
        activation_checkpointing: keep each block's input alone and recompute the rest in backward.
    """
    is_sharded, num_blocks = strategy == "fsdp", config.n_layers
    sketch = _two_blocks(config, lora_r, lora_target_modules)
    everything, trained = _sizes(sketch), _sizes(sketch, is_trained=True)
    step = _follow_step(sketch, rows, length, is_sharded=is_sharded, bfloat16=bfloat16)

    num_trained = trained.total(num_blocks)
    num_frozen = everything.total(num_blocks) - num_trained
    num_shards = world_size if is_sharded else 1
    computed = _BFLOAT16 if bfloat16 else _FLOAT32
    gradients = _FLOAT32 * num_trained // num_shards

    activations = step.first_block + (num_blocks - 1) * step.block
    copies = step.autocast.total(num_blocks)
    head_backward, block_backward, root_again = step.head_backward, step.block_backward, 0
    if activation_checkpointing:
        activations = step.embedded + num_blocks * step.hidden
        block_backward += step.block - step.hidden
        # Autocast's copies do not outlive forward, but for the head's; a block's are made again when it is recomputed.
        head_backward -= copies - step.autocast.root
        block_backward -= copies - step.autocast.block
    logits = max(step.head_forward, head_backward)
    if strategy == "ddp":
        # DDP's buckets: the gradients move into them with a step's last micro-batch, and lie beside them until then.
        copies += gradients
    if is_sharded:
        # Gathered are the root, throughout, and two blocks: the one that computes and the next, prefetched.
        copies = computed * (everything.root + min(2, num_blocks) * everything.block)
        # Scattered in float32, a block's gradients while the next block computes.
        block_backward += _FLOAT32 * trained.block
        # With no activation alive the root is there again: first in the buffer that gathers it, last as gradients in
        # float32 and this device's share of them.
        root_again = max(computed * everything.root, _FLOAT32 * (trained.root + trained.root // num_shards))
    return MemoryEstimate(
        weights=(computed * num_frozen + _FLOAT32 * num_trained) // num_shards,
        gradients=gradients,
        optimizer=_ADAMW_MOMENTS * num_trained // num_shards,
        copies=copies,
        activations=activations,
        logits=logits,
        backward=max(0, max(block_backward, root_again - activations) - logits),
    )


def count_parameters(
    config: LLaDAConfig, lora_r: int | None = None, lora_target_modules: Sequence[str] = LORA_TARGETS
) -> tuple[int, int]:
    """All parameters, adapters included, and how many of them are trained."""
    sketch = _two_blocks(config, lora_r, lora_target_modules)
    return _sizes(sketch).total(config.n_layers), _sizes(sketch, is_trained=True).total(config.n_layers)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What belongs to each block, and to the root, which is all the rest; in parameters or in bytes."""

    block: int
    root: int

    def total(self, num_blocks: int) -> int:
        return self.root + num_blocks * self.block


@dataclass(frozen=True, slots=True)
class _Step:
    """Bytes at the moments of a step that decide its peak; weights and their gradients are not in them.

    Attributes:
        embedded: alive before the first block.
        hidden: a block's input.
        first_block: alive after the first block, which keeps less than the others if nothing below it is trained.
        block: what each further block adds.
        head_forward, head_backward: what the head adds at its peak in each.
        block_backward: what one block's backward adds at its peak.
        autocast: the bfloat16 copies of float32 weights.
    """

    embedded: int
    hidden: int
    first_block: int
    block: int
    head_forward: int
    head_backward: int
    block_backward: int
    autocast: _Sizes


@dataclass(frozen=True, slots=True)
class _Moment:
    """Bytes alive, their peak since the moment before, and all casts of weights so far."""

    live: int
    peak: int
    cast: int


class _LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation allocates; autocast's casts of weights are counted apart."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self._live = self._peak = self._cast = 0
        weights = list(weights)
        self._weights = {weight.untyped_storage() for weight in weights}
        gradients = {weight.grad.untyped_storage() for weight in weights if weight.grad is not None}
        self._seen = weakref.WeakSet(self._weights | gradients)

    def watch(self, module: nn.Module) -> list[_Moment]:
        """Filled in later: the moments when `module` gets its input, and when that input has its gradient."""
        moments: list[_Moment] = []

        def before_forward(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            moments.append(self.moment())
            if inputs[0].requires_grad:
                inputs[0].register_hook(lambda _gradient: moments.append(self.moment()))

        module.register_forward_pre_hook(before_forward)
        return moments

    def moment(self) -> _Moment:
        moment = _Moment(self._live, self._peak, self._cast)
        self._peak = self._live
        return moment

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        is_cast = func is torch.ops.aten._to_copy.default and args[0].untyped_storage() in self._weights
        for storage in {leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}:
            if storage not in self._seen:
                self._seen.add(storage)
                self._follow(storage, is_cast=is_cast)
        return result

    def _follow(self, storage: UntypedStorage, *, is_cast: bool) -> None:
        if is_cast:
            self._cast += storage.nbytes()
            return
        self._live += storage.nbytes()
        self._peak = max(self._peak, self._live)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self._live -= size


def _two_blocks(config: LLaDAConfig, lora_r: int | None, lora_target_modules: Sequence[str]) -> LLaDAModelLM:
    """The model cut to two blocks, with its adapters, on the meta device."""
    cut = copy.deepcopy(config)
    cut.n_layers = 2
    with torch.device("meta"), no_init_weights():
        sketch = LLaDAModelLM(cut).train()
        if lora_r is not None:
            # Imported here: most runs have no adapters.
            from peft import LoraConfig, inject_adapter_in_model

            # Only within the blocks: the head is called ff_out, too.
            params = LoraParams(lora_r, lora_r, tuple(lora_target_modules))
            inject_adapter_in_model(LoraConfig(r=lora_r, target_modules=params.pattern), sketch)
    return sketch


def _sizes(sketch: LLaDAModelLM, *, is_trained: bool = False) -> _Sizes:
    def count(module: nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not is_trained)

    block = count(sketch.model.transformer["blocks"][1])
    return _Sizes(block, count(sketch) - 2 * block)


def _follow_step(sketch: LLaDAModelLM, rows: int, length: int, *, is_sharded: bool, bfloat16: bool) -> _Step:
    first, second = sketch.model.transformer["blocks"]
    with FakeTensorMode():
        _allocate(sketch, is_sharded=is_sharded, bfloat16=bfloat16)
        embeddings, *_ = sketch.get_input_embeddings().parameters()
        memory = _LiveBytes(sketch.parameters())
        at_first, at_second, at_head = [memory.watch(m) for m in (first, second, sketch.model.transformer["ln_f"])]
        with memory:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = _loss(sketch, rows, length)
            after_forward = memory.moment()
            loss.backward()
    after_first, after_second = at_second[0], at_head[0]
    cast_block = after_second.cast - after_first.cast
    return _Step(
        embedded=at_first[0].live,
        hidden=rows * length * sketch.config.d_model * embeddings.element_size(),
        first_block=after_first.live,
        block=after_second.live - after_first.live,
        head_forward=after_forward.peak - after_second.live,
        head_backward=at_head[1].peak - after_second.live,
        block_backward=at_second[1].peak - after_second.live,
        autocast=_Sizes(cast_block, after_forward.cast - 2 * cast_block),
    )


def _allocate(sketch: LLaDAModelLM, *, is_sharded: bool, bfloat16: bool) -> None:
    """Put fake weights in place of the meta ones, in the dtypes that forward finds."""
    for module in sketch.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            is_float32 = not bfloat16 or (weight.requires_grad and not is_sharded)
            data = torch.zeros(weight.shape, dtype=torch.float32 if is_float32 else torch.bfloat16)
            allocated = nn.Parameter(data, requires_grad=weight.requires_grad)
            if weight.requires_grad and not is_sharded:
                # Adding to a gradient needs room for the new one; FSDP's whole gradients start anew in each backward.
                allocated.grad = torch.zeros_like(allocated)
            setattr(module, name, allocated)


def _loss(model: LLaDAModelLM, rows: int, length: int) -> Tensor:
    """As `masked_cross_entropy`, everything masked: fake tensors cannot be indexed by a mask."""
    packed = PackedTokens(torch.zeros(rows * length, dtype=torch.long), (length,) * rows)
    logits_RV = model.predict(packed, torch.arange(rows * length)).float()
    return F.cross_entropy(logits_RV, packed.tokens_T, reduction="none").sum()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no more to give; the CPU's allocator has no error of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
