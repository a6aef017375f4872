"""Byte-level vocabularies of any size: all bytes, then strings that look like words, numbers, punctuation and spaces.

Some tokens hold part of a character, as those of real vocabularies do.
"""

import json
import random
from functools import cache

from llada_core.model.shape import ModelShape
from llada_core.sampling.prepare import Vocabulary
from llada_core.text.byte_trie import bytes_of
from llada_core.text.special_tokens import SpecialTokens
from llada_core.text.tokenizer import Tokenizer

_NUM_SPECIAL = 3
_SYLLABLES = "a|e|i|o|u|an|en|er|in|on|re|st|th|ing|ed|al|el|or|ti|ro|la|de|co|ma|ne|ra"
_MARKS = r'{"|":|", "|"}|},|: [|]}|  |://|():|...| =|\n|\"|, |. '
_LETTERS = "éüñ語中文の한ж🙂"


@cache
def vocabulary_of(size: int) -> Vocabulary:
    """Return a vocabulary of `size` ids: mask, EOS and EoT are the last three."""
    characters = {bytes_of(chr(code))[0]: chr(code) for code in range(0x144) if len(bytes_of(chr(code))) == 1}
    tokens = [bytes([byte]) for byte in range(256)] + _strings(size - 256 - _NUM_SPECIAL)
    names = ["".join(characters[byte] for byte in token) for token in tokens]
    special = ["<|mdm_mask|>", "<|endoftext|>", "<|eot_id|>"]
    definition = {
        "version": "1.0",
        "added_tokens": [
            {"id": len(names) + number, "content": name, "special": True}
            | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            for number, name in enumerate(special)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {name: number for number, name in enumerate(names)}, "merges": []},
    }
    shape = ModelShape(num_layers=1, num_key_value_heads=1, head_dim=4, vocab_size=size, max_sequence_length=8192)
    mask_id = len(names)
    return Vocabulary(shape, SpecialTokens(mask_id, mask_id + 1, mask_id + 2), Tokenizer(json.dumps(definition)))


def _strings(number: int) -> list[bytes]:
    generator = random.Random(number)
    found: dict[bytes, None] = {}
    while len(found) < number:
        kind = generator.random()
        if kind < 0.9:
            word = "".join(generator.choices(_SYLLABLES.split("|"), k=generator.randint(1, 5)))
            word = word.capitalize() if generator.random() < 0.2 else word
            text = " " * (generator.random() < 0.5) + word
        elif kind < 0.94:
            text = "".join(generator.choices(_MARKS.split("|"), k=generator.randint(1, 3)))
        elif kind < 0.96:
            text = str(generator.randrange(10 ** generator.randint(1, 6)))
        else:
            text = "".join(generator.choices(_LETTERS, k=generator.randint(1, 3)))
        token = text.encode()
        if kind >= 0.98:
            token = token[: generator.randint(1, len(token))] + token[generator.randint(0, len(token)) :]
        if len(token) > 1:
            found[token] = None
    return list(found)
