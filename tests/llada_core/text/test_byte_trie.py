import json
import random

import pytest

from llada_core.text.byte_trie import ByteTrie
from llada_core.text.tokenizer import Tokenizer
from tests.vocabularies import tokenizer_from, vocabulary_of


def tokens_of(trie: ByteTrie) -> dict[int, bytes]:
    """The bytes of every token, read along its path."""
    found, above = {}, [b""]
    for level in trie.levels:
        above = [above[parent] + bytes([byte]) for parent, byte in zip(level.parents_N, level.bytes_N, strict=True)]
        found |= {int(id_): above[node] for id_, node in zip(level.token_ids_M, level.token_nodes_M, strict=True)}
        assert len(set(above)) == len(above)
    return found


def test_the_trie_holds_what_the_tokenizer_decodes(demo_tokenizer):
    for tokenizer in (demo_tokenizer, vocabulary_of(4096).tokenizer):
        tokens = tokens_of(tokenizer.byte_trie)
        assert len(tokens) == len(tokenizer) - len(tokenizer.special_tokens)
        generator = random.Random(0)
        for _ in range(300):
            ids = generator.choices(sorted(tokens), k=generator.randint(1, 6))
            assert b"".join(tokens[id_] for id_ in ids).decode(errors="replace") == tokenizer.decode(ids)


def test_special_tokens_have_no_bytes_and_ids_may_share_them():
    tokenizer = tokenizer_from([b"a", b"\xc3", b"ab"])
    assert tokens_of(tokenizer.byte_trie) == {0: b"a", 1: b"\xc3", 2: b"ab"}
    assert tokens_of(ByteTrie.of([b"a", b"", b"a"])) == {0: b"a", 2: b"a"}
    assert ByteTrie.of([]).levels == ()


def test_an_added_token_is_its_text():
    definition = tokenizer_from([b"a"])._decoder
    definition.add_tokens(["<step> é", "ok"])
    tokens = tokens_of(Tokenizer(definition.to_str()).byte_trie)
    assert {token.decode() for token in tokens.values()} == {"a", "<step> é", "ok"}


@pytest.mark.parametrize(
    "decoder",
    [None, {"type": "Fuse"}, {"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Fuse"}]}],
    ids=str,
)
def test_a_vocabulary_that_is_not_byte_level_has_no_trie(decoder):
    definition = json.loads(tokenizer_from([b"a"])._decoder.to_str())
    if decoder:
        byte_level = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        decoder["decoders"] = [part | byte_level for part in decoder.get("decoders", [])]
    assert Tokenizer(json.dumps(definition | {"decoder": decoder})).byte_trie is None
