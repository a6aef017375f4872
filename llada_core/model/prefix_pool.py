"""Keys and values of finished blocks, shared by the requests whose tokens begin alike.

Under block-causal attention the keys and values of a block depend on its tokens and on those before it, and on nothing
else. So the blocks form a tree, in which each is found by its tokens among those that follow the same block. Tokens are
compared, not only their hashes.

Shape suffix: L tokens of a sequence.
"""

import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from llada_core.model.interface import MaskPredictor
from llada_core.model.kv_cache import KVCache

# The memory of a block besides its keys and values: objects of Python and torch, the places in dictionaries.
_OBJECT_BYTES = 1200


@dataclass(eq=False, slots=True)
class _Block:
    """A finished block, or the root before the first ones.

    Attributes:
        parent: the block before it; None for a root.
        tokens: its ids, as bytes; the key among the parent's `following`.
        layers: its keys and values, as `KVCache.read` returns them; None for a root.
        num_references: the leases that end with it, and the blocks that follow it. With none it may be evicted.
    """

    parent: "_Block | None" = None
    tokens: bytes = b""
    layers: Tensor | None = None
    following: "dict[bytes, _Block]" = field(default_factory=dict)
    num_references: int = 0

    @property
    def num_bytes(self) -> int:
        assert self.layers is not None
        return self.layers.nbytes + len(self.tokens) + _OBJECT_BYTES


@dataclass(eq=False, slots=True)
class _Lease:
    """A cache's hold on the blocks that it begins with: the last of them, which holds those before it.

    Attributes:
        length: their positions.
    """

    block: _Block
    length: int = 0

    def extend(self, block: _Block, block_length: int) -> None:
        """Hold a block that follows the last one."""
        block.num_references += 1
        self.block.num_references -= 1
        self.block = block
        self.length += block_length


class PrefixPool:
    """The finished blocks of a model's requests, as many as fit into a number of bytes.

    A cache takes copies, and holds the blocks that it has in common with the pool as long as it exists: whatever drops
    the cache gives them back. Where there is no room, blocks that no cache holds are evicted, the least recently held
    first, each after those that follow it. Threads may share a pool.

    Attributes:
        model: the model whose keys and values these are; its weights must not change.
        max_bytes: the most memory that the blocks take.
        num_bytes: the memory that they take now.
    """

    def __init__(self, model: MaskPredictor, max_bytes: int) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._lock = Lock()
        # A block's keys and values depend on where the blocks before it end.
        self._roots: dict[tuple[torch.dtype, int], _Block] = {}
        # Least recently held first. A block that no cache holds comes before the one that it follows.
        self._blocks: OrderedDict[_Block, None] = OrderedDict()
        self._leases: weakref.WeakKeyDictionary[KVCache, _Lease] = weakref.WeakKeyDictionary()
        # Filled by finalizers, which may run at any moment, even within a method of this class.
        self._ended: deque[_Lease] = deque()

    @property
    def num_held_bytes(self) -> int:
        """The memory of blocks that caches hold, which cannot be evicted."""
        with self._lock:
            self._end_leases()
            held = {block for lease in self._leases.values() for block in _path(lease.block)}
            return sum(block.num_bytes for block in held)

    def fill(self, cache: KVCache, tokens_L: np.ndarray, block_length: int) -> int:
        """Copy the keys and values of the first blocks of a sequence into its cache, as far as the pool has them.

        Args:
            cache: the sequence's; what an earlier call has filled is not copied again.
            tokens_L: int64 ids of the sequence's finished blocks, from its first position on.

        Returns:
            The positions from the first on that the cache has in common with the pool.
        """
        with self._lock:
            self._end_leases()
            lease = self._lease(cache, block_length)
            while (block := lease.block.following.get(_tokens(tokens_L, lease, block_length))) is not None:
                assert block.layers is not None
                cache.write(lease.length, block.layers)
                lease.extend(block, block_length)
            return lease.length

    def keep(self, cache: KVCache, tokens_L: np.ndarray, block_length: int) -> None:
        """Copy the filled blocks of a cache into the pool, as far as there is room.

        Args:
            tokens_L: int64 ids of the cache's sequence.
        """
        with self._lock:
            self._end_leases()
            lease = self._lease(cache, block_length)
            while lease.length + block_length <= cache.filled:
                tokens = _tokens(tokens_L, lease, block_length)
                block = lease.block.following.get(tokens)
                if block is None:
                    positions = slice(lease.length, lease.length + block_length)
                    block = self._add(_Block(lease.block, tokens, cache.read(positions)))
                if block is None:
                    return
                lease.extend(block, block_length)

    def _lease(self, cache: KVCache, block_length: int) -> _Lease:
        """Return the lease of a cache; a new one holds no block."""
        lease = self._leases.get(cache)
        if lease is None:
            root = self._roots.setdefault((cache.dtype, block_length), _Block())
            root.num_references += 1
            lease = self._leases[cache] = _Lease(root)
            weakref.finalize(cache, self._ended.append, lease).atexit = False
        return lease

    def _end_leases(self) -> None:
        """Give back the blocks of caches that exist no more."""
        while self._ended:
            lease = self._ended.popleft()
            lease.block.num_references -= 1
            for block in _path(lease.block):
                self._blocks.move_to_end(block)

    def _add(self, block: _Block) -> _Block | None:
        """Add a block after its parent; None if there is no room for it."""
        assert block.parent is not None
        if not self._make_room(block.num_bytes):
            return None
        block.parent.following[block.tokens] = block
        block.parent.num_references += 1
        self._blocks[block] = None
        self.num_bytes += block.num_bytes
        return block

    def _make_room(self, num_bytes: int) -> bool:
        """Evict blocks until there is room for `num_bytes`; whether there is."""
        evicted = []
        for block in self._blocks:
            if self.num_bytes + num_bytes <= self.max_bytes:
                break
            if block.num_references == 0:
                assert block.parent is not None
                del block.parent.following[block.tokens]
                block.parent.num_references -= 1
                self.num_bytes -= block.num_bytes
                evicted.append(block)
        for block in evicted:
            del self._blocks[block]
        return self.num_bytes + num_bytes <= self.max_bytes


def _tokens(tokens_L: np.ndarray, lease: _Lease, block_length: int) -> bytes:
    """Return the tokens of the block after a lease's last one; empty if there is no whole one."""
    tokens = tokens_L[lease.length : lease.length + block_length]
    return tokens.tobytes() if len(tokens) == block_length else b""


def _path(block: _Block) -> list[_Block]:
    """Return a block and those that it follows, without the root."""
    path = []
    while block.parent is not None:
        path.append(block)
        block = block.parent
    return path
