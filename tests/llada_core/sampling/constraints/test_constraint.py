"""The compiled form against its definition: every token's moves, distances, and the shortest answer."""

import re
from collections import deque

import numpy as np
import pytest

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints import constraint as constraint_module
from llada_core.sampling.constraints import tokens
from llada_core.sampling.constraints.automaton import DEAD, Deadline, build_automaton
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.prepare import Vocabulary
from tests.llada_core.sampling.constraints.brute_force import EOS, EOT, MASK, PATTERNS, VOCABULARY, answers
from tests.llada_core.text.test_byte_trie import tokens_of
from tests.vocabularies import vocabulary_from, vocabulary_of


def moves_of(constraint, token_id):
    sources, targets = constraint.arcs(constraint.classes_V[token_id])
    return dict(zip(sources.tolist(), targets.tolist(), strict=True))


@pytest.mark.parametrize("pattern", [r'"[^"\\]{0,5}"', "(yes|no|maybe)+", r"(\w|é){2,4}\n?", ".*re.*"])
def test_every_token_moves_every_state_as_its_bytes_do(pattern):
    vocabulary = vocabulary_of(1024)
    constraint = compile_constraint(pattern, vocabulary)
    automaton = build_automaton(pattern, Deadline())
    for token_id, token in tokens_of(vocabulary.tokenizer.byte_trie).items():
        expected = {}
        for state in range(len(automaton.next_QB)):
            after = state
            for byte in token:
                after = automaton.next_QB[after, automaton.byte_classes[byte]] if after != DEAD else DEAD
            if after != DEAD:
                expected[state] = after
        assert moves_of(constraint, token_id) == expected, token


def test_only_ends_lead_to_the_end_and_nothing_leads_out_of_it():
    constraint = compile_constraint("a+", VOCABULARY)
    end = constraint.num_states - 1
    assert moves_of(constraint, EOS) == moves_of(constraint, EOT) == {1: end, end: end}
    assert moves_of(constraint, MASK) == {}
    assert all(end not in moves_of(constraint, token_id) for token_id in range(8))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_shortest_answer_is_the_shortest_there_is(pattern):
    constraint = compile_constraint(pattern, VOCABULARY)
    shortest = constraint.shortest
    assert len(answers(pattern, shortest))
    assert not any(len(answers(pattern, length)) for length in range(1, shortest))


def test_distances_are_those_of_a_search_from_each_state():
    constraint = compile_constraint(r'\{"a": "[^"]{2,9}"\}', vocabulary_of(1024))
    arcs = {(int(s), int(t)) for s, t in zip(constraint.sources_A, constraint.targets_A, strict=True)}
    after = {state: [t for s, t in arcs if s == state] for state in range(constraint.num_states)}
    end = constraint.num_states - 1
    for start in range(constraint.num_states):
        seen, waiting = {start: 0}, deque([start])
        while waiting:
            state = waiting.popleft()
            for target in after[state]:
                if target not in seen:
                    seen[target] = seen[state] + 1
                    waiting.append(target)
        # The end of the text is not counted.
        assert constraint.distances_S[start] == max(0, seen[end] - 1)


def test_bits_hold_the_neighbours_of_each_state():
    constraint = compile_constraint(r"(?:[^a]\d){1,30}", vocabulary_of(1024))
    number = constraint.num_states
    expected = np.zeros((number, number), dtype=bool)
    expected[constraint.sources_A, constraint.targets_A] = True
    for bits, neighbours in ((constraint.successors_SW, expected), (constraint.predecessors_SW, expected.T)):
        found = np.unpackbits(bits.view(np.uint8), axis=1, count=number, bitorder="little")
        assert (found == neighbours).all()


def test_a_vocabulary_that_cannot_write_every_byte_limits_the_answers():
    vocabulary = vocabulary_from([b"a", b"bc"])
    assert compile_constraint("a|b", vocabulary).shortest == 1
    assert moves_of(compile_constraint("(?:a|b)c", vocabulary_from([b"a", b"c", b"b"])), 0) != {}
    # No answer goes through the b that only stands before a c.
    constraint = compile_constraint("a|bd", vocabulary_from([b"a", b"b", b"c"]))
    assert moves_of(constraint, 1) == {}
    with pytest.raises(InvalidParameterError, match="matches no text that this model can write"):
        compile_constraint("b", vocabulary)


def test_ids_without_text_are_never_written():
    vocabulary = vocabulary_of(1024)
    wider = Vocabulary(vocabulary.shape, vocabulary.special_tokens, vocabulary_from([b"a"]).tokenizer)
    constraint = compile_constraint("a*", wider)
    assert constraint.shortest == 0
    assert np.flatnonzero(constraint.classes_V).tolist() == [0, *sorted(vocabulary.special_tokens.end_ids)]


def test_a_vocabulary_smaller_than_its_tokenizer_is_cut():
    vocabulary = vocabulary_of(1024)
    shape, special_tokens = VOCABULARY.shape, VOCABULARY.special_tokens
    constraint = compile_constraint(".*", Vocabulary(shape, special_tokens, vocabulary.tokenizer))
    assert len(constraint.classes_V) == 11


def test_a_model_without_a_byte_level_tokenizer_cannot_be_constrained(tiny):
    with pytest.raises(InvalidParameterError, match="no tokenizer, or one that is not byte-level"):
        compile_constraint("a", Vocabulary.of(tiny))


def test_limits_say_their_numbers(monkeypatch):
    for name, module in (("MAX_ARCS", constraint_module), ("MAX_MOVES", tokens)):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, 50)
            with pytest.raises(InvalidParameterError, match=re.escape("50")):
                compile_constraint("[a-z]{1,20}", vocabulary_of(1024))
