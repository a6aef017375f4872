"""Compile a pattern for the vocabulary of a model."""

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints.constraint import Constraint, compile_pattern
from llada_core.sampling.prepare import Vocabulary


def compile_constraint(pattern: str, vocabulary: Vocabulary) -> Constraint:
    """Compile a pattern: the answers are the texts for which `re.fullmatch(pattern, text, re.ASCII)` matches.

    It takes milliseconds to seconds. The vocabulary's trie is built with the first pattern and kept with the tokenizer.

    Raises:
        InvalidParameterError: the pattern is not supported, needs more states, moves or computing than the limits
            allow, or matches no text that this vocabulary can write; the model has no byte-level tokenizer.
    """
    trie = None if vocabulary.tokenizer is None else vocabulary.tokenizer.byte_trie
    if trie is None:
        raise InvalidParameterError(
            "regex: this model has no tokenizer, or one that is not byte-level; its answers cannot be constrained",
            "regex",
        )
    return compile_pattern(pattern, trie, vocabulary.special_tokens, vocabulary.shape.vocab_size)
