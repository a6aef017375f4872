"""Answers of a small vocabulary by trying every sequence of tokens: what constraints are judged by."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np

from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.constraints.constraint import Constraint
from tests.vocabularies import vocabulary_from

# Both halves of é among them.
TOKENS = [b"a", b"b", b"ab", b"ba", b"\xc3", b"\xa9", "é".encode(), b"1"]
VOCABULARY = vocabulary_from(TOKENS)
MASK, EOS, EOT = 8, 9, 10
PATTERNS = ["a*", "(ab|ba)+", "a?é{1,2}", "[^a]{2,3}", "é|ab1", "(a|b)*1", ".{0,3}", "b(é1)*", ""]


@cache
def constraint_of(pattern: str) -> Constraint:
    return compile_constraint(pattern, VOCABULARY)


@cache
def answers(pattern: str, length: int) -> np.ndarray:
    """All responses of `length` tokens whose text matches, with nothing but ends after it: [answers, length]."""
    words = [id_ for id_ in range(len(TOKENS) + 3) if id_ != MASK]
    found = [ids for ids in product(words, repeat=length) if is_answer(pattern, ids)]
    return np.array(found, dtype=np.int64).reshape(len(found), length)


def is_answer(pattern: str, ids: Sequence[int]) -> bool:
    ends = [position for position, id_ in enumerate(ids) if id_ in (EOS, EOT)]
    length = ends[0] if ends else len(ids)
    if len(ends) < len(ids) - length:
        return False
    try:
        text = b"".join(TOKENS[id_] for id_ in ids[:length]).decode()
    except UnicodeDecodeError:
        return False
    return re.fullmatch(pattern, text, re.ASCII) is not None


def fillings(pattern: str, response: Sequence[int]) -> np.ndarray:
    """The answers that agree with a response wherever it is not masked."""
    found = answers(pattern, len(response))
    fixed = np.array([id_ != MASK for id_ in response])
    return found[(found[:, fixed] == np.array(response)[fixed]).all(axis=1)]
