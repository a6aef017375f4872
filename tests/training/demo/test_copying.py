"""Exercises in copying words."""

import re
from itertools import islice
from random import Random

from training.demo.copying import beginning_dialogues, repeat_dialogues
from training.demo.stories import heroes

NONE = frozenset[str]()


def test_what_is_repeated_is_what_was_said() -> None:
    for dialogue in islice(repeat_dialogues(NONE, Random(0)), 500):
        question, answer = dialogue.turns
        assert question.endswith(f": {answer}")
        assert 1 <= len(answer.split()) <= 6


def test_a_beginning_is_one_sentence_about_the_word_asked_for() -> None:
    for dialogue in islice(beginning_dialogues(NONE, Random(0)), 500):
        question, answer = dialogue.turns
        asked = re.search(r"about an? ([a-z]+)", question)
        assert asked and f" {asked[1]} " in answer
        assert answer.count(".") == 1


def test_most_words_are_none_that_could_be_learned_by_heart() -> None:
    words = [word for d in islice(repeat_dialogues(NONE, Random(0)), 1000) for word in d.turns[1].split()]
    assert 0.3 < sum(word in heroes() for word in words) / len(words) < 0.5
    assert len(set(words)) > 2000


def test_held_out_words_are_not_copied() -> None:
    held_out = frozenset(heroes()[:400])
    words = {word for d in islice(repeat_dialogues(held_out, Random(0)), 1000) for word in d.turns[1].split()}
    assert not words & held_out
