"""A pool of finished blocks: found by all tokens before them, evicted least recently held first, never while held."""

import threading

import numpy as np
import pytest
import torch

from llada_core import load_model
from llada_core.model.kv_cache import KVCache
from llada_core.model.prefix_pool import PrefixPool
from tests.llada_core.model.architectures.test_family import FAMILY

LENGTH = 4


@pytest.fixture(scope="module")
def model():
    return load_model(FAMILY / "sdar" / "models" / "tiny-variant")


def tokens_of(text):
    """A block for each letter."""
    return np.repeat(np.array([ord(letter) for letter in text], dtype=np.int64), LENGTH)


def cache_of(model, text, value=1.0):
    """A cache of blocks whose keys and values tell their positions."""
    cache = KVCache(model.shape, len(text) * LENGTH, dtype=torch.float32, device=torch.device("cpu"))
    cache.write(0, torch.full_like(cache.read(slice(None)), value))
    cache.filled = cache.length
    return cache


def room_for(model, blocks):
    """A pool with room for so many blocks."""
    pool = PrefixPool(model, 1 << 30)
    pool.keep(cache_of(model, "a"), tokens_of("a"), LENGTH)
    return PrefixPool(model, blocks * pool.num_bytes)


def put(pool, text, value=1.0):
    cache = cache_of(pool.model, text, value)
    pool.keep(cache, tokens_of(text), LENGTH)
    return cache


def known(pool, text):
    """How many of the first blocks the pool has."""
    cache = KVCache(pool.model.shape, len(text) * LENGTH, dtype=torch.float32, device=torch.device("cpu"))
    return pool.fill(cache, tokens_of(text), LENGTH) // LENGTH


def test_a_block_is_found_after_the_same_blocks_only(model):
    pool = room_for(model, 99)
    put(pool, "abc")
    put(pool, "xbd")
    assert [known(pool, text) for text in ("abc", "abd", "xbc", "bc", "cab", "ab")] == [3, 2, 2, 0, 0, 2]


def test_a_part_of_a_block_is_none(model):
    pool = room_for(model, 99)
    cache = cache_of(model, "abc")
    cache.filled = 2 * LENGTH + 3
    pool.keep(cache, tokens_of("abc"), LENGTH)
    assert known(pool, "abc") == 2
    shorter = KVCache(model.shape, 3 * LENGTH, dtype=torch.float32, device=torch.device("cpu"))
    assert pool.fill(shorter, tokens_of("abc")[: LENGTH + 3], LENGTH) == LENGTH


def test_keys_and_values_are_copied_both_ways(model):
    pool = room_for(model, 99)
    first = put(pool, "ab", value=2.0)
    first.write(0, torch.zeros_like(first.read(slice(None))))
    second = cache_of(model, "abc", value=5.0)
    assert pool.fill(second, tokens_of("abc"), LENGTH) == 2 * LENGTH
    assert (second.read(slice(0, 2 * LENGTH)) == 2).all() and (second.read(slice(2 * LENGTH, None)) == 5).all()


def test_another_dtype_or_length_of_blocks_has_blocks_of_its_own(model):
    pool = room_for(model, 99)
    put(pool, "aabb")
    half = KVCache(model.shape, 4 * LENGTH, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert pool.fill(half, tokens_of("aabb"), LENGTH) == 0
    longer = KVCache(model.shape, 4 * LENGTH, dtype=torch.float32, device=torch.device("cpu"))
    assert pool.fill(longer, tokens_of("aabb"), 2 * LENGTH) == 0


def test_the_same_blocks_are_kept_once(model):
    pool = room_for(model, 99)
    caches = [put(pool, "abc") for _ in range(3)]
    assert pool.num_bytes == pool.num_held_bytes == room_for(model, 3).max_bytes
    del caches
    assert pool.num_held_bytes == 0


def test_the_least_recently_held_block_goes_first_and_after_those_that_follow_it(model):
    pool = room_for(model, 4)
    put(pool, "abc")
    put(pool, "x")
    # "ab" is held again, so its "c" and then "x" are older.
    assert known(pool, "ab") == 2
    put(pool, "y")
    assert [known(pool, "abc"), known(pool, "x")] == [2, 1]
    put(pool, "z")
    put(pool, "w")
    assert pool.num_bytes == pool.max_bytes
    assert [known(pool, text) for text in ("ab", "x", "y", "z", "w")] == [1, 1, 0, 1, 1]


def test_blocks_that_a_cache_holds_stay_however_full_the_pool_is(model):
    pool = room_for(model, 3)
    held = put(pool, "ab")
    put(pool, "xyz")
    assert [known(pool, "ab"), known(pool, "xyz")] == [2, 1]
    del held
    put(pool, "xyz")
    assert [known(pool, "ab"), known(pool, "xyz")] == [0, 3]


def test_a_pool_that_was_too_full_takes_the_rest_later(model):
    pool = room_for(model, 3)
    other, cache = put(pool, "ab"), put(pool, "xyz")
    assert known(pool, "xyz") == 1
    del other
    pool.keep(cache, tokens_of("xyz"), LENGTH)
    assert known(pool, "xyz") == 3


@pytest.mark.parametrize("max_bytes", [0, 100])
def test_a_pool_without_room_for_a_block_keeps_none(model, max_bytes):
    pool = PrefixPool(model, max_bytes)
    cache = put(pool, "abc")
    assert (pool.num_bytes, known(pool, "abc"), cache.filled) == (0, 0, 3 * LENGTH)


def test_threads_may_share_a_pool(model):
    pool = room_for(model, 20)
    errors = []

    def work(seed):
        try:
            rng = np.random.default_rng(seed)
            for _ in range(150):
                text = "".join(rng.choice(list("abc"), size=rng.integers(1, 7)))
                cache = cache_of(model, text, value=float("nan"))
                filled = pool.fill(cache, tokens_of(text), LENGTH)
                assert not cache.read(slice(0, filled)).isnan().any()
                cache.write(0, torch.ones_like(cache.read(slice(None))))
                pool.keep(cache, tokens_of(text), LENGTH)
                assert pool.num_bytes <= pool.max_bytes
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert pool.num_held_bytes == 0
