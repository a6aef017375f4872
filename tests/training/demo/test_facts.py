"""Phrasings, capitals, definitions and small talk."""

import re
from importlib.resources import files
from random import Random

from training.demo import phrasings
from training.demo.facts import capital_dialogues, countries, definitions
from training.demo.sampling import data_lines
from training.demo.smalltalk import chitchat_dialogues, smalltalk_dialogues, topics


def test_there_are_forty_ways_to_ask_for_a_capital() -> None:
    assert len({phrasings.CAPITAL_QUESTION, *phrasings.CAPITAL_QUESTIONS}) >= 40


def test_held_out_templates_differ_from_trained_ones() -> None:
    trained = {*phrasings.CAPITAL_QUESTIONS, *phrasings.CAPITAL_QUESTIONS_BY_CITY, *phrasings.CAPITAL_QUESTIONS_BRIEF}
    assert not trained & set(phrasings.HELD_OUT_CAPITAL_QUESTIONS)
    assert not set(phrasings.DEFINITION_QUESTIONS) & set(phrasings.HELD_OUT_DEFINITION_QUESTIONS)


def test_countries_and_words_are_taught_once() -> None:
    assert len({country.country for country in countries()}) == len(countries()) >= 150
    assert len({definition.word for definition in definitions()}) == len(definitions()) >= 350
    assert len({definition.gloss for definition in definitions()}) == len(definitions())


def test_the_commonest_nouns_of_childrens_english_are_defined() -> None:
    # The nouns of Dolch's list in the singular, without names of days and holidays.
    nouns = re.findall(
        r"\w+",
        """
        apple baby ball bear bed bell bird birthday boat box boy bread brother cake car cat chair chicken child coat
        corn cow day dog doll door duck egg eye farm farmer father foot fire fish floor flower game garden girl grass
        ground hand head hill home horse house kitten leg letter man milk money morning mother name nest night paper
        party picture pig rabbit rain ring robin school seed sheep shoe sister snow song squirrel stick street sun table
        thing time top toy tree watch water way wind window wood
        """,
    )
    known = {definition.word for definition in definitions()}
    assert len([noun for noun in nouns if noun in known]) >= 0.85 * len(nouns)


def test_a_capital_of_two_names_belongs_to_one_country_when_asked_for() -> None:
    for _, dialogue in zip(range(20_000), capital_dialogues(frozenset(), Random(0)), strict=False):
        if "London" in dialogue.turns[0]:
            assert dialogue.turns[1] == "London is the capital of the United Kingdom."


def test_glosses_are_short() -> None:
    assert all(len(definition.gloss.split()) <= 12 for definition in definitions())


def test_most_capital_questions_get_the_usual_answer() -> None:
    dialogues = [dialogue for _, dialogue in zip(range(2000), capital_dialogues(frozenset(), Random(0)), strict=False)]
    usual = [dialogue for dialogue in dialogues if dialogue.turns[1].startswith("The capital of ")]
    assert len(usual) >= 0.7 * len(dialogues)


def test_small_talk_leaves_no_slot_open() -> None:
    assert all(topic.sayings and topic.answers for topic in topics())
    for talk in (smalltalk_dialogues(Random(0)), chitchat_dialogues(Random(0))):
        for _, dialogue in zip(range(2000), talk, strict=False):
            assert not any("{" in turn or "_" in turn for turn in dialogue.turns)


def test_data_files_are_plain_ascii() -> None:
    for file in (files("training.demo") / "data").iterdir():
        assert all(line.isascii() for line in data_lines(file.name))
