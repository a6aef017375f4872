"""The bytes of every token of a byte-level vocabulary, as a tree: tokens that begin alike share the path to its root.

Such a vocabulary writes a byte as one printable character (GPT-2's table), so a token may hold part of a character.

Shape suffixes: N nodes of a level, M tokens that end there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """The nodes at one depth.

    Attributes:
        parents_N: int32; each node's place in the level above; 0, the root, in the first level.
        bytes_N: uint8; the byte between parent and node.
        token_ids_M, token_nodes_M: the tokens that end at this depth, and their nodes.
    """

    parents_N: np.ndarray
    bytes_N: np.ndarray
    token_ids_M: np.ndarray
    token_nodes_M: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class ByteTrie:
    """The levels below the root, from the first byte of a token to the last byte of the longest.

    Attributes:
        num_tokens: ids are below it. Special and unused ones are at no node.
    """

    levels: tuple[Level, ...]
    num_tokens: int

    @classmethod
    def of(cls, tokens: Sequence[bytes]) -> "ByteTrie":
        """Build the tree; a token without bytes is at no node.

        Args:
            tokens: the bytes of each id.
        """
        text = np.frombuffer(b"".join(tokens), dtype=np.uint8)
        lengths = np.array([len(token) for token in tokens], dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        ids = np.flatnonzero(lengths)
        nodes = np.zeros(len(ids), dtype=np.int64)
        levels = []
        for depth in range(int(lengths.max(initial=0))):
            keys, nodes = np.unique(nodes * 256 + text[starts[ids] + depth], return_inverse=True)
            is_last = lengths[ids] == depth + 1
            levels.append(
                Level(
                    (keys // 256).astype(np.int32),
                    (keys % 256).astype(np.uint8),
                    ids[is_last].astype(np.int32),
                    nodes[is_last].astype(np.int32),
                )
            )
            ids, nodes = ids[~is_last], nodes[~is_last]
        return cls(tuple(levels), len(tokens))


def bytes_of(piece: str) -> bytes:
    """Return what a byte-level decoder writes for a token as the vocabulary spells it."""
    table = _byte_of_character()
    if all(character in table for character in piece):
        return bytes(table[character] for character in piece)
    # An added token is spelled as its text.
    return piece.encode()


@cache
def _byte_of_character() -> dict[str, int]:
    """GPT-2's table: printable characters of Latin-1 stand for themselves, the other bytes for those from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
