"""The written data: nothing held out leaks into it, and a seed fixes every byte."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from llada_core.text.tokenizer import Message
from training.demo import build, phrasings
from training.demo.facts import countries
from training.demo.sampling import data_lines
from training.demo.splits import make_splits
from training.demo.unknown import UNKNOWN_ANSWER, word_question

SCALE = 0.05
SOLVED = re.compile(r"(\d+) ([+*-]) (\d+) = (-?\d+)")
NAMES = {"+": "sums", "-": "differences", "*": "products"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo-data")
    build.main(folder, seed=0, scale=SCALE)
    return folder


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def texts(path: Path) -> list[str]:
    return [text for row in rows_of(path) for text in (contents(row) if "messages" in row else ["".join(row["text"])])]


def contents(row: dict) -> list[str]:
    return [message["content"] for message in row["messages"]]


def training_texts(folder: Path) -> list[str]:
    return [text for name in ("pretrain", "sft", "labels") for text in texts(folder / f"{name}.jsonl")]


def plain(text: str) -> str:
    return text.lower().rstrip("?.!")


def solved(folder: Path) -> Counter[tuple[str, tuple[int, int]]]:
    """The exercises in the training texts, all of which must be right but those that are to be judged."""
    found: Counter[tuple[str, tuple[int, int]]] = Counter()
    for text in training_texts(folder):
        for a, sign, b, result in SOLVED.findall(text):
            operation = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[sign]
            assert operation(int(a), int(b)) == int(result) or text.endswith("\nAnswer:")
            found[NAMES[sign], (int(a), int(b))] += 1
    return found


def test_no_held_out_exercise_occurs_in_training(written: Path) -> None:
    held_out = make_splits(0).exercises
    seen = solved(written)
    counts = Counter(name for name, _ in held_out)
    assert counts["sums"] > 550 and counts["differences"] > 180
    assert len(seen) > 3000
    assert not seen.keys() & held_out


def test_exercises_of_one_digit_numbers_have_a_share_of_their_own(written: Path) -> None:
    seen = solved(written)
    of_one_digit = sum(count for (_, pair), count in seen.items() if max(pair) < 10)
    assert 0.25 < of_one_digit / seen.total() < 0.4
    assert {("sums", (a, b)) for a in range(10) for b in range(10)} <= seen.keys()


def test_held_out_phrasings_and_follow_ups_are_not_trained(written: Path) -> None:
    trained = {plain(text) for text in training_texts(written)}
    asked = [q for q in make_splits(0).questions if q.task in ("capitals", "definitions")]
    assert len(asked) > 2000
    assert not [q.turns for q in asked if plain(q.turns[-1]) in trained]
    conversations = {tuple(contents(row)[i : i + 4 : 2]) for row in rows_of(written / "sft.jsonl") for i in (0, 2)}
    pairs = make_splits(0).follow_ups
    followed = [pair for pair in conversations if len(pair) == 2 and pair[1].startswith(("And ", "What about "))]
    assert followed
    names = {country.country: country for country in countries()}
    for first, second in followed:
        known = [pair for pair in pairs if f" {pair[0]}" in first and f" {pair[1]}?" in second]
        assert not [pair for pair in known if names[pair[0]].say(phrasings.CAPITAL_QUESTION) == first]


def test_held_out_words_and_places_are_never_asked_for(written: Path) -> None:
    held_out = make_splits(0).unknown
    assert len(held_out) == 100
    # Some are also topics of other questions without an answer.
    topics = {word for line in data_lines("unknown.txt") for word in re.findall(r"[A-Za-z]+", line)}
    trained = {plain(text) for text in training_texts(written)}
    for word in held_out - topics:
        definitions = {plain(word_question(template, word)) for template in phrasings.DEFINITION_QUESTIONS}
        capitals = {plain(template.format(country=word)) for template in phrasings.CAPITAL_QUESTIONS}
        assert not (definitions | capitals) & trained


def test_a_sixth_of_the_dialogues_says_that_it_does_not_know(written: Path) -> None:
    answers = [contents(row)[-1] for row in rows_of(written / "sft.jsonl")]
    assert 0.12 < answers.count(UNKNOWN_ANSWER) / len(answers) < 0.2


def test_some_dialogues_go_on_from_another(written: Path) -> None:
    lengths = Counter(len(row["messages"]) for row in rows_of(written / "sft.jsonl"))
    assert 0.05 < 1 - lengths[2] / lengths.total() < 0.25
    assert max(lengths) >= 4


def test_gaps_have_text_on_both_sides_and_mostly_a_space_before(written: Path) -> None:
    gaps = rows_of(written / "gaps.jsonl")
    assert len(gaps) > 1000
    assert all(gap["prefix"] and gap["middle"] and gap["suffix"] for gap in gaps)
    assert 0.5 < sum(gap["prefix"].endswith(" ") for gap in gaps) / len(gaps) < 0.9


def test_same_seed_same_bytes(written: Path, tmp_path: Path) -> None:
    build.main(tmp_path, seed=0, scale=SCALE)
    for file in written.iterdir():
        assert file.read_bytes() == (tmp_path / file.name).read_bytes()


def test_another_seed_gives_other_bytes(written: Path, tmp_path: Path) -> None:
    build.main(tmp_path, seed=1, scale=0.01)
    assert (written / "heldout.jsonl").read_bytes() != (tmp_path / "heldout.jsonl").read_bytes()


def test_every_country_is_asked_for_in_the_usual_words(written: Path) -> None:
    asked = {plain(text) for text in texts(written / "sft.jsonl")}
    assert plain(phrasings.CAPITAL_QUESTION.format(country="France")) in asked
    assert len([text for text in asked if text.startswith("what is the capital of ")]) > 140


def test_validation_stories_are_not_trained(written: Path) -> None:
    assert not set(texts(written / "validation.jsonl")) & set(texts(written / "pretrain.jsonl"))


def test_dialogues_alternate_and_end_with_the_assistant(written: Path) -> None:
    for line in (written / "sft.jsonl").read_text().splitlines():
        roles = [message["role"] for message in json.loads(line)["messages"]]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)


def test_the_recipe_has_room_for_the_longest_dialogues(written, demo_tokenizer):
    recipe = yaml.safe_load((Path(build.__file__).parents[1] / "configs/demo.yaml").read_text(encoding="utf-8"))
    rows = sorted(rows_of(written / "sft.jsonl"), key=lambda row: sum(map(len, contents(row))))[-200:]
    lengths = [len(demo_tokenizer.encode_chat([Message(**turn) for turn in row["messages"]])) for row in rows]
    assert max(lengths) <= recipe["sft"]["max_length"]
