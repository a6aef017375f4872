"""The written data: nothing held out leaks into it, and a seed fixes every byte."""

import json
import re
from pathlib import Path

import pytest

from training.demo import build, phrasings
from training.demo.splits import make_splits

SCALE = 0.05
SUM = re.compile(r"(\d+) (?:\+|plus|and) (\d+)")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo-data")
    build.main(folder, seed=0, scale=SCALE)
    return folder


def texts(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    return [text for row in rows for text in ([row["text"]] if "text" in row else contents(row))]


def contents(row: dict) -> list[str]:
    return [message["content"] for message in row["messages"]]


def training_texts(folder: Path) -> list[str]:
    return [text for name in ("pretrain", "sft") for text in texts(folder / f"{name}.jsonl")]


def plain(text: str) -> str:
    return text.lower().rstrip("?.!")


def test_no_held_out_sum_occurs_in_training(written: Path) -> None:
    held_out = make_splits(0).sums
    seen = {(int(a), int(b)) for text in training_texts(written) for a, b in SUM.findall(text)}
    assert len(held_out) == 300
    assert len(seen) > 3000
    assert not [pair for pair in seen if tuple(sorted(pair)) in held_out]


def test_held_out_phrasings_are_not_trained(written: Path) -> None:
    trained = {plain(text) for text in training_texts(written)}
    asked = [q for q in make_splits(0).questions if q.task != "sums"]
    assert len({q.task for q in asked}) == 2
    assert not [q.question for q in asked if plain(q.question) in trained]


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
    assert len([text for text in asked if text.startswith("what is the capital of ")]) > 80


def test_validation_stories_are_not_trained(written: Path) -> None:
    assert not set(texts(written / "validation.jsonl")) & set(texts(written / "pretrain.jsonl"))


def test_dialogues_alternate_and_end_with_the_assistant(written: Path) -> None:
    for line in (written / "sft.jsonl").read_text().splitlines():
        roles = [message["role"] for message in json.loads(line)["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
