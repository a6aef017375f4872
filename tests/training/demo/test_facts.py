"""Phrasings, capitals, definitions and small talk."""

from random import Random

from training.demo import phrasings
from training.demo.facts import capital_dialogues, countries, definitions
from training.demo.sampling import data_lines
from training.demo.smalltalk import smalltalk_dialogues, topics


def test_there_are_forty_ways_to_ask_for_a_capital() -> None:
    assert len({phrasings.CAPITAL_QUESTION, *phrasings.CAPITAL_QUESTIONS}) >= 40


def test_held_out_templates_differ_from_trained_ones() -> None:
    trained = {*phrasings.CAPITAL_QUESTIONS, *phrasings.CAPITAL_QUESTIONS_BY_CITY, *phrasings.CAPITAL_QUESTIONS_BRIEF}
    assert not trained & set(phrasings.HELD_OUT_CAPITAL_QUESTIONS)
    assert not set(phrasings.DEFINITION_QUESTIONS) & set(phrasings.HELD_OUT_DEFINITION_QUESTIONS)


def test_countries_and_words_are_taught_once() -> None:
    assert len({country.country for country in countries()}) == len(countries()) >= 80
    assert len({definition.word for definition in definitions()}) == len(definitions()) >= 118


def test_glosses_are_short() -> None:
    assert all(len(definition.gloss.split()) <= 12 for definition in definitions())


def test_most_capital_questions_get_the_usual_answer() -> None:
    dialogues = [dialogue for _, dialogue in zip(range(2000), capital_dialogues(Random(0)), strict=False)]
    usual = [dialogue for dialogue in dialogues if dialogue.turns[1].startswith("The capital of ")]
    assert len(usual) >= 0.7 * len(dialogues)


def test_small_talk_leaves_no_slot_open() -> None:
    assert all(topic.sayings and topic.answers for topic in topics())
    for _, dialogue in zip(range(2000), smalltalk_dialogues(Random(0)), strict=False):
        assert not any("{" in turn or "_" in turn for turn in dialogue.turns)


def test_data_files_are_plain_ascii() -> None:
    for name in ("capitals.tsv", "definitions.tsv", "lexicon.txt", "plots.txt", "smalltalk.txt", "unknown.txt"):
        assert all(line.isascii() for line in data_lines(name))
