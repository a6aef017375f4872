"""Documents with a gap."""

from dataclasses import astuple
from itertools import islice
from random import Random

from training.demo.infilling import few_words, filled_gaps, sentence
from training.demo.stories import heroes, tell

RNG = Random(0)
STORIES = [tell(RNG, hero=RNG.choice(heroes())).text for _ in range(300)]


def test_the_parts_make_the_text_again() -> None:
    assert ["".join(astuple(gap)) for gap in filled_gaps(iter(STORIES), Random(1))] == STORIES


def test_there_is_text_before_the_gap_in_it_and_after_it() -> None:
    for gap in filled_gaps(iter(STORIES), Random(1)):
        assert all(part.strip() for part in astuple(gap))


def test_spaces_stand_on_either_side_of_the_borders() -> None:
    gaps = list(filled_gaps(iter(STORIES), Random(1), cut=few_words))
    assert {gap.prefix.endswith(" ") for gap in gaps} == {gap.middle.endswith(" ") for gap in gaps} == {True, False}
    assert not any(gap.prefix.endswith(" ") and gap.middle.startswith(" ") for gap in gaps)


def test_a_sentence_is_cut_whole_and_never_the_first() -> None:
    for gap in islice(filled_gaps(iter(STORIES), Random(1), cut=sentence), 100):
        assert gap.prefix.rstrip()[-1] in '.!"'
        assert gap.middle.strip()[0].isupper() or gap.middle.strip()[0] == '"'


def test_a_text_in_which_nothing_can_follow_a_gap_is_passed_over() -> None:
    texts = ["one", "two three", "four five."]
    assert ["".join(astuple(gap)) for gap in filled_gaps(iter(texts), Random(0))] == ["four five."]
