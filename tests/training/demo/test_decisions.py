"""Questions with lettered options: right, in any order, and the held-out ones never trained."""

import re
from collections import Counter
from itertools import islice
from random import Random

import pytest

from training.demo.build import build
from training.demo.decisions import Decision, decision_dialogues, held_out_decisions, is_kept_aside
from training.demo.facts import countries, definitions
from training.demo.sampling import Dialogue

NOTHING = frozenset[str]()
NO_EXERCISE = frozenset[tuple[str, tuple[int, int]]]()
SOLVED = re.compile(r"(\d+) ([+-]) (\d+) = (-?\d+)")
STATEMENT = re.compile(r"The capital of (.*) is (.*)\.\n|(?:The city of )?([A-Z][\w' -]*) is the capital of (.*)\.\n")
CAPITALS = {country.country: country.capital for country in countries()}


@pytest.fixture(scope="module")
def drawn() -> list[Dialogue]:
    return list(islice(decision_dialogues(NO_EXERCISE, NOTHING, Random(0)), 4000))


def options(question: str) -> dict[str, str]:
    """The options of a question, by label."""
    return dict(re.findall(r"^([A-Z])\. (.*)$", question, re.MULTILINE))


def test_an_answer_is_the_label_of_an_option(drawn: list[Dialogue]) -> None:
    for dialogue in drawn:
        question, answer = dialogue.turns
        assert question.endswith("\nAnswer:")
        assert list(options(question)) == list("ABCDE"[: len(options(question))])
        assert answer in options(question)


def test_no_label_and_neither_truth_is_more_often_right(drawn: list[Dialogue]) -> None:
    yes_or_no = [d.turns for d in drawn if sorted(options(d.turns[0]).values()) == ["no", "yes"]]
    assert len(yes_or_no) > 2000
    for counted in (
        Counter(answer for _, answer in yes_or_no),
        Counter(options(question)[answer] for question, answer in yes_or_no),
    ):
        assert all(0.45 < count / len(yes_or_no) < 0.55 for count in counted.values())


def test_yes_stands_mostly_but_not_always_first(drawn: list[Dialogue]) -> None:
    first = Counter(options(d.turns[0])["A"] for d in drawn if sorted(options(d.turns[0]).values()) == ["no", "yes"])
    assert 0.8 < first["yes"] / first.total() < 0.9


def test_statements_about_capitals_and_exercises_are_judged_rightly(drawn: list[Dialogue]) -> None:
    judged: Counter[str] = Counter()
    for dialogue in drawn:
        question, answer = dialogue.turns
        said = options(question)[answer]
        if exercise := SOLVED.search(question):
            a, sign, b, result = exercise.groups()
            is_right = {"+": int.__add__, "-": int.__sub__}[sign](int(a), int(b)) == int(result)
            assert said == ("yes" if is_right else "no")
            judged["exercises"] += 1
        elif statement := STATEMENT.match(question):
            country, capital = statement.group(1, 2) if statement[1] else statement.group(4, 3)
            is_right = CAPITALS[country] == capital
            assert said == ("yes" if is_right else "no")
            judged["capitals"] += 1
        elif said in CAPITALS.values():
            asked = question.splitlines()[0].lower()
            assert any(country.lower() in asked for country, capital in CAPITALS.items() if capital == said)
            judged["choices"] += 1
    assert judged["exercises"] > 300 and judged["capitals"] > 200 and judged["choices"] > 200


def test_held_out_questions_are_balanced_and_none_of_them_is_trained() -> None:
    held_out = list(held_out_decisions(Random(0)))
    assert Counter(decision.kind for decision in held_out) == {"predicate": 2 * 508, "choice": 508}
    assert sum(decision.answer for decision in held_out if decision.kind == "predicate") == 508
    trained = {
        "".join(turn["content"] for turn in row["messages"]) for row in build(0, scale=0.05)["labels"]["decisions"]
    }
    for decision in held_out:
        text = decision.text or decision.question.instructions
        assert not [text for seen in trained if seen.startswith(text + "\n")]


def test_a_tenth_of_the_false_statements_is_kept_aside() -> None:
    pairs = [(country, other) for country in countries() for other in countries()]
    assert 0.08 < sum(is_kept_aside(*pair) for pair in pairs) / len(pairs) < 0.12
    assert not any(is_kept_aside(word, word) for word in definitions())


def test_a_row_says_the_answer_in_words_whatever_the_order_of_options() -> None:
    kinds: dict[str, Decision] = {decision.kind: decision for decision in held_out_decisions(Random(0))}
    assert kinds["predicate"].row()["answer"] in (True, False)
    choice = kinds["choice"].row()
    assert {"value": choice["answer"]} in choice["question"]["choices"]
