"""Documents with a gap."""

from itertools import islice
from random import Random

from training.demo.infilling import few_words, infilling_documents, sentence
from training.demo.stories import heroes, tell

RNG = Random(0)
STORIES = [tell(RNG, hero=RNG.choice(heroes())).text for _ in range(300)]


def test_the_parts_make_the_text_again() -> None:
    cut = infilling_documents(iter(STORIES), Random(1))
    assert ["".join(parts) for parts in cut] == STORIES


def test_no_part_is_empty_and_the_gap_is_not_the_beginning() -> None:
    for parts in infilling_documents(iter(STORIES), Random(1)):
        assert all(parts)
        assert len(parts[0].split()) >= 1


def test_spaces_stand_on_either_side_of_the_borders() -> None:
    cut = list(infilling_documents(iter(STORIES), Random(1), cut=few_words))
    assert {parts[0].endswith(" ") for parts in cut} == {parts[1].endswith(" ") for parts in cut} == {True, False}
    assert not any(parts[0].endswith(" ") and parts[1].startswith(" ") for parts in cut)


def test_a_sentence_is_cut_whole_and_never_the_first() -> None:
    for parts in islice(infilling_documents(iter(STORIES), Random(1), cut=sentence), 100):
        assert parts[0].rstrip()[-1] in '.!"'
        assert parts[1].strip()[0].isupper() or parts[1].strip()[0] == '"'


def test_a_text_of_one_word_can_be_cut_no_further() -> None:
    assert "".join(next(infilling_documents(iter(["one two"]), Random(0)))) == "one two"
