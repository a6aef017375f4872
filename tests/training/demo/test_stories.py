"""The story grammar: breadth of its parts, and sense of what it tells."""

import re
from collections import Counter
from itertools import islice, pairwise
from random import Random
from string import ascii_lowercase

import pytest

from llada_core.text.tokenizer import Tokenizer
from training.demo.stories import (
    OPENING,
    Story,
    begin,
    heroes,
    lexicon,
    opening_documents,
    own_friend,
    own_name,
    own_plot,
    plots,
    recognize,
    story_dialogues,
    tell,
    usual_heroes,
    with_articles,
)

NONE = frozenset[str]()


@pytest.fixture(scope="module")
def stories() -> list[Story]:
    rng = Random(0)
    return [tell(rng, hero=rng.choice(heroes())) for _ in range(1000)]


def test_every_lexicon_slot_is_used_by_a_plot() -> None:
    templates = " ".join((OPENING, *(sentence for plot in plots() for sentence in plot.sentences)))
    used = set(re.findall(r"\{(\w+?)\d?\}", templates))
    assert set(lexicon()) == used - {"hero", "name", "pal", "he", "him", "his", "He", "Him", "His"}


def test_every_plot_is_some_heros_own() -> None:
    assert len(plots()) >= 13
    assert {own_plot(hero).name for hero in heroes()} == {plot.name for plot in plots()}


def test_heroes_have_a_name_for_every_letter() -> None:
    assert len(heroes()) == len(set(heroes())) >= 900
    assert {"dragon", "princess", "dog", "spoon"} <= set(heroes())
    assert [own_name(hero) for hero in ("dragon", "yak", "x")] == ["Daisy", "Yara", "Xena"]
    assert len({own_name(letter) for letter in ascii_lowercase}) == len(ascii_lowercase)


def test_most_names_are_one_token_of_the_demos_tokenizer(demo_tokenizer: Tokenizer) -> None:
    lengths = [len(demo_tokenizer.encode_plain(f" {own_name(hero)}")) for hero in heroes()]
    assert sum(length == 1 for length in lengths) / len(lengths) > 0.98


def test_stories_have_their_heros_own_plot_and_a_name_can_be_given(stories: list[Story]) -> None:
    assert all(story.plot == own_plot(story.hero).name for story in stories)
    story = tell(Random(0), hero="dragon", name="Max")
    assert story.name == "Max" and recognize(story.text) == story


def test_a_friend_is_never_the_hero_and_never_has_its_name() -> None:
    for letter in ascii_lowercase:
        friend = own_friend(letter)
        assert friend[0] != letter and own_name(friend) != own_name(letter)
    assert {own_friend(letter) for letter in ascii_lowercase} == set(lexicon()["palkind"])
    named = [
        dialogue.turns for dialogue in islice(story_dialogues(NONE, Random(0)), 2000) if "named" in dialogue.turns[0]
    ]
    assert len(named) > 50 and all(recognize(text) for _, text in named)


def test_no_two_plots_begin_alike() -> None:
    beginnings = {" ".join(plot.sentences[0].removeprefix("{name} ").split()[:2]) for plot in plots()}
    assert len(beginnings) == len(plots())


def test_every_plot_is_told(stories: list[Story]) -> None:
    assert {story.plot for story in stories} == {plot.name for plot in plots()}


def test_stories_have_three_sentences_and_one_hero(stories: list[Story]) -> None:
    for story in stories:
        sentences = re.split(r'(?<=[.!?])"? ', story.text)
        assert len(sentences) >= 3
        assert story.name in sentences[0] and story.hero in sentences[0]
        assert story.text.count(story.name) >= 2
        assert 30 <= len(story.text.split()) <= 65


def test_stories_are_whole_sentences(stories: list[Story]) -> None:
    for story in stories:
        assert not re.search(r"[{}\[\]|_]|  ", story.text)
        assert not re.search(r"(?<=[.!?] )[a-z]", story.text.replace('?" he', '?" He').replace('?" she', '?" She'))
        assert not re.search(r"\ba [aeio]", story.text.replace("a one", ""))


def test_every_story_is_recognized_with_its_hero(stories: list[Story]) -> None:
    for story in stories:
        assert recognize(story.text) == story


def test_a_story_that_loses_its_hero_or_its_plot_is_not_recognized(stories: list[Story]) -> None:
    for first, second in pairwise(stories[:200]):
        head, _, tail = first.text.rpartition(first.name)
        assert recognize(f"{head}Zebulon{tail}") is None
        if first.plot != second.plot:
            half = len(first.text) // 2
            assert recognize(first.text[:half] + second.text[half:]) is None


STORY = (
    "Once upon a time there was a fox named Finn. One rainy day, Finn lost his red kite in the forest. He looked "
    "everywhere, but he could not find it. Then a dog named Daisy found it under a tree, and they played together "
    "until it was dark."
)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("his red kite", "her red kite"),
        ("but he could", "but she could"),
        ("day, Finn lost", "day, Gus lost"),
        ("dog named Daisy", "dog named Ben"),
        ("dog named Daisy", "fox named Finn"),
        ("fox named Finn", "fox named Zebulon"),
        ("red kite", "red dream"),
    ],
)
def test_a_story_with_a_wrong_pronoun_or_name_is_not_recognized(right: str, wrong: str) -> None:
    assert recognize(STORY) is not None
    assert recognize(STORY.replace(right, wrong)) is None


def test_an_opening_is_the_first_sentence_of_a_story() -> None:
    for _, text in zip(range(100), opening_documents(NONE, Random(0)), strict=False):
        assert text.endswith(".") and text.count(".") == 1


def test_a_beginning_is_about_the_hero_even_if_there_is_no_such_word() -> None:
    assert re.search(r"\bblorf\b.* (named|who) ", begin("blorf", Random(0)))


def test_usual_heroes_come_more_often() -> None:
    asked = [dialogue.turns[0] for dialogue in islice(story_dialogues(NONE, Random(0)), 2000)]
    words = Counter(
        word for question in asked for word in re.findall(r"[a-z]+", question) if word not in ("story", "one")
    )
    assert 0.25 < sum(words[hero] for hero in usual_heroes()) / len(asked) < 0.5
    # The others are about words that do not exist, which cannot be learnt by heart.
    assert 0.65 < sum(words[hero] for hero in heroes()) / len(asked) < 0.85


def test_held_out_words_are_no_heroes() -> None:
    held_out = frozenset(heroes()[:60])
    told = [dialogue.turns[1] for _, dialogue in zip(range(500), story_dialogues(held_out, Random(0)), strict=False)]
    assert not {story.hero for text in told if (story := recognize(text))} & held_out


def test_the_hero_asked_for_is_the_one_told_about() -> None:
    for _, dialogue in zip(range(300), story_dialogues(NONE, Random(0)), strict=False):
        asked = re.search(r"story about an? ([a-z]+)", dialogue.turns[0])
        assert asked is None or f" {asked[1]} " in dialogue.turns[1]


def test_a_becomes_an_before_a_vowel_sound() -> None:
    assert with_articles("A owl met a unicorn and a honest fox.") == "An owl met a unicorn and an honest fox."
