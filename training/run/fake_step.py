"""One training step without data, to measure the memory it holds at each moment.

A step of the real model, cut to two blocks, runs forward and backward on fake tensors (shapes without data), and every
storage is followed from its allocation to its release. All blocks are alike, so the second one stands for every
further one. The fake device is a CPU: its attention kernel keeps queries, keys, values, output and log-sum-exp, as a
GPU's does.

The figures are a step's worst case: every position is masked and reaches the head (t near 1), and the gradients of
earlier micro-batches are already allocated.

Shape suffixes: T tokens of all rows, R of them that reach the head, V columns of the head.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llada_core.diffusion.loss import RowLoss, head_losses, packed_for_training
from llada_core.model.config import ModelConfig
from llada_core.model.layers import Block
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens
from training.options.fields import LoraParams
from training.run.quantized_base import BaseDtype, QuantizedLinear
from training.run.token_rows import train_rows


@dataclass(frozen=True, slots=True)
class Sizes:
    """The share of each block, and of the root, which is everything else; in parameters or in bytes."""

    block: int
    root: int

    def total(self, num_blocks: int) -> int:
        return self.root + num_blocks * self.block


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes at the moments of a step that decide its peak, without weights and their gradients.

    Attributes:
        first_block: alive after the first block, which keeps less than the others if nothing below it is trained.
        block: added by each further block.
        head_forward, head_backward: added by the head at the peak of each pass.
        block_backward: added by one block's backward at its peak.
        autocast: the bfloat16 copies of float32 weights.
    """

    first_block: int
    block: int
    head_forward: int
    head_backward: int
    block_backward: int
    autocast: Sizes


def two_blocks(config: ModelConfig, lora: LoraParams | None, base_dtype: BaseDtype | None = None) -> Network:
    """The model cut to two blocks, with its adapters, on the meta device."""
    with torch.device("meta"):
        sketch = Network(config.cut(2)).train()
        for block in sketch.blocks:
            assert isinstance(block, Block)
            block.sort_by_expert = _evenly
        if base_dtype is not None:
            _sketch_quantized(sketch.blocks)
        if lora is not None:
            # Imported here: `peft` takes seconds, and most runs train all weights.
            from peft import LoraConfig, inject_adapter_in_model

            pattern = config.describe().adapter_pattern(lora.targets)
            inject_adapter_in_model(LoraConfig(r=lora.r, target_modules=pattern), sketch)
            if lora.token_ids:
                train_rows(sketch, lora.token_ids)
    return sketch


def _evenly(experts_TN: Tensor, num_experts: int, *, with_idle: bool = False) -> list[tuple[int, Tensor]]:
    """Give every expert as many tokens: fake ones choose none."""
    places = torch.arange(experts_TN.numel()).chunk(num_experts)
    return list(enumerate(places))


class _SketchedLinear(QuantizedLinear):
    """Stands for a quantized layer: it has a weight of the original size, and a copy of it wherever it computes."""

    def __init__(self, linear: nn.Linear) -> None:
        nn.Linear.__init__(self, linear.in_features, linear.out_features, bias=False)
        self.weight.requires_grad_(False)

    def dequantized(self) -> Tensor:
        return torch.empty_like(self.weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantizedLinear":
        return nn.Linear._apply(self, fn, recurse)


def _sketch_quantized(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _SketchedLinear(child))
        else:
            _sketch_quantized(child)


def num_quantized(sketch: Network) -> int:
    """The weights of a block that are quantized."""
    layers = (module for module in sketch.blocks[1].modules() if isinstance(module, QuantizedLinear))
    return sum(layer.in_features * layer.out_features for layer in layers)


def sizes_of(sketch: Network, *, is_trained: bool = False) -> Sizes:
    """The parameters of a model of two blocks; with `is_trained`, only those that are trained."""

    def count(module: nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters() if weight.requires_grad or not is_trained)

    block = count(sketch.blocks[1])
    return Sizes(block, count(sketch) - 2 * block)


def follow_step(
    sketch: Network, rows: int, length: int, *, row_loss: RowLoss, is_sharded: bool, bfloat16: bool
) -> StepBytes:
    """Run a step of `rows` samples of `length` tokens, and measure it.

    Args:
        row_loss: what the objective takes of the logits at each masked position.
        is_sharded: weights arrive in the dtype of the computation, and gradients do not accumulate on the device.
    """
    _, second = sketch.blocks
    with FakeTensorMode():
        _allocate(sketch, is_sharded=is_sharded, bfloat16=bfloat16)
        memory = _LiveBytes(sketch.parameters())
        at_second, at_head = memory.watch(second), memory.watch(sketch.final_norm)
        with memory:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                loss = _loss(sketch, rows, length, row_loss)
            after_forward = memory.moment()
            loss.backward()
    after_first, after_second = at_second[0], at_head[0]
    cast_block = after_second.cast - after_first.cast
    return StepBytes(
        first_block=after_first.live,
        block=after_second.live - after_first.live,
        head_forward=after_forward.peak - after_second.live,
        head_backward=at_head[1].peak - after_second.live,
        block_backward=at_second[1].peak - after_second.live,
        autocast=Sizes(cast_block, after_forward.cast - 2 * cast_block),
    )


def follow_pass(sketch: Network, rows: int, length: int, *, is_sharded: bool, bfloat16: bool) -> int:
    """The bytes that a pass without gradients holds at its peak, below the head; weights and their casts left out.

    Args:
        is_sharded: see `follow_step`.
    """
    with FakeTensorMode():
        _allocate(sketch, is_sharded=is_sharded, bfloat16=bfloat16)
        memory = _LiveBytes(sketch.parameters())
        tokens_T = torch.zeros(rows * length, dtype=torch.long)
        with memory, torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            sketch.hidden_states(PackedTokens(tokens_T, (length,) * rows))
    return memory.moment().peak


def _allocate(sketch: Network, *, is_sharded: bool, bfloat16: bool) -> None:
    """Put fake weights in place of the meta ones, in the dtypes that forward finds."""
    for module in sketch.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.zeros(buffer.shape, dtype=buffer.dtype))
        for name, weight in list(module.named_parameters(recurse=False)):
            is_float32 = not bfloat16 or (weight.requires_grad and not is_sharded)
            data = torch.zeros(weight.shape, dtype=torch.float32 if is_float32 else torch.bfloat16)
            allocated = nn.Parameter(data, requires_grad=weight.requires_grad)
            if weight.requires_grad and not is_sharded:
                # Adding to a gradient needs room for the new one; under FSDP each backward starts with none.
                allocated.grad = torch.zeros_like(allocated)
            setattr(module, name, allocated)


def _loss(model: Network, rows: int, length: int, row_loss: RowLoss) -> Tensor:
    """`losses_at_masks` with everything masked: fake tensors cannot be indexed by a mask."""
    tokens_T = torch.zeros(rows * length, dtype=torch.long)
    packed = packed_for_training(model.shape, tokens_T, tokens_T, (length,) * rows)
    hidden_RE = model.hidden_states(packed)[torch.arange(rows * length)]
    return head_losses(model, hidden_RE, tokens_T, row_loss).sum()


@dataclass(frozen=True, slots=True)
class _Moment:
    """Bytes alive, their peak since the previous moment, and all casts of weights so far."""

    live: int
    peak: int
    cast: int


class _LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation allocates; autocast's casts of weights are counted separately."""

    def __init__(self, weights: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self._live = self._peak = self._cast = 0
        weights = list(weights)
        self._weights = {weight.untyped_storage() for weight in weights}
        gradients = {weight.grad.untyped_storage() for weight in weights if weight.grad is not None}
        self._seen = weakref.WeakSet(self._weights | gradients)

    def watch(self, module: nn.Module) -> list[_Moment]:
        """A list to be filled with the moments when `module` gets its input, and when that input has its gradient."""
        moments: list[_Moment] = []

        def before_forward(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            moments.append(self.moment())
            if inputs[0].requires_grad:
                inputs[0].register_hook(lambda _gradient: moments.append(self.moment()))

        module.register_forward_pre_hook(before_forward)
        return moments

    def moment(self) -> _Moment:
        """The current state; reading it resets the peak."""
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
