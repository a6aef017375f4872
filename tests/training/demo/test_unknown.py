"""Questions without an answer: words, places and exercises that are not taught."""

import re
from itertools import islice
from random import Random

from training.demo.facts import capital_dialogues, countries, definitions
from training.demo.sampling import data_lines
from training.demo.unknown import UNKNOWN_ANSWER, made_up, unknown_dialogues, unknown_question, untaught, word_question

NONE = frozenset[str]()


def test_what_is_taught_is_not_listed_as_untaught() -> None:
    taught = {definition.word for definition in definitions()} | {country.country for country in countries()}
    listed = [word for kind in ("thing", "common", "abstract", "place", "elsewhere") for word in untaught(kind)]
    assert len(listed) == len(set(listed)) > 900
    assert not taught & set(listed)


def test_every_dialogue_ends_with_the_honest_answer_and_leaves_no_slot_open() -> None:
    for _, dialogue in zip(range(3000), unknown_dialogues(NONE, Random(0)), strict=False):
        assert dialogue.turns[-1] == UNKNOWN_ANSWER
        assert len(dialogue.turns) in (2, 4)
        assert not any(re.search(r"[{}_]", turn) for turn in dialogue.turns)


def test_no_question_about_a_word_or_a_capital_has_an_answer() -> None:
    rng, taught = Random(0), {definition.word for definition in definitions()}
    names = {country.country for country in countries()}
    for _ in range(3000):
        question = unknown_question(NONE, rng)
        if match := re.fullmatch(r"What is (?:an? )?([a-z]+)\?", question):
            assert match[1] not in taught
        if match := re.fullmatch(r"What is the capital of (.+)\?", question):
            assert match[1] not in names


def test_the_usual_wording_says_nothing_about_whether_a_place_is_known() -> None:
    """Else every place asked for in the usual words would get a capital."""
    unknown = [unknown_question(NONE, Random(i)) for i in range(6000)]
    about_capitals = [question for question in unknown if "capital" in question.lower()]
    usual = sum(question.startswith("What is the capital of ") for question in about_capitals) / len(about_capitals)
    known = [dialogue.turns[0] for dialogue in islice(capital_dialogues(frozenset(), Random(0)), 6000)]
    assert usual > 0.2
    assert usual >= sum(question.startswith("What is the capital of ") for question in known) / len(known) - 0.02


def test_made_up_words_are_many_and_not_taught() -> None:
    rng = Random(0)
    words = [made_up(rng) for _ in range(2000)]
    assert len(set(words)) > 1900
    assert all(re.fullmatch(r"[a-z]{4,}", word) for word in words)
    assert not set(words) & {definition.word for definition in definitions()}


def test_held_out_words_are_not_drawn() -> None:
    held_out = frozenset(untaught("thing")[:400])
    rng = Random(0)
    words = {word for _ in range(2000) for word in re.findall(r"[a-z]+", unknown_question(held_out, rng))}
    # Some are also topics of other questions, and one is in the phrasing "our neighbor asked".
    topics = {"neighbor"} | {word for line in data_lines("unknown.txt") for word in re.findall(r"[a-z]+", line)}
    assert not words & held_out - topics


def test_a_thing_takes_an_article_and_an_abstract_word_does_not() -> None:
    assert word_question("What is {term}?", "octopus") == "What is an octopus?"
    assert word_question("What is {term}?", "rocket") == "What is a rocket?"
    assert word_question("What is {term}?", "democracy") == "What is democracy?"
