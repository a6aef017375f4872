"""What the demo model answers rightly, recorded for `llada-train distill`."""

import pytest

from llada_core import DEMO_FOLDER
from training.data.formats import ReadReport
from training.data.sources import find_sources
from training.data.trajectories import Learner, read_trajectories
from training.demo import recordings


def test_right_answers_are_written_as_distill_reads_them(demo, demo_tokenizer, tmp_path, capsys):
    output = tmp_path / "answers.jsonl"
    recordings.main(DEMO_FOLDER, output, scale=0.002)
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == recordings.NUM_DIALOGUES.keys() and " of     3 " in printed["capitals"]
    learner = Learner(demo_tokenizer.mask_id, demo.shape.vocab_size)
    (source,) = find_sources([str(output)])
    answers = list(read_trajectories(source.records(), ReadReport(limit=0), learner))
    assert len(answers) == sum(int(counts.split()[0]) for counts in printed.values()) > 0
    assert {len(answer.trajectory.token_ids) for answer in answers} <= {32, 64, 128}


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("2 + 2 = 4.", "2 + 2 = 4.", True),
        (" 2 + 2 = 4.\n", "2 + 2 = 4.", True),
        ("2 + 2 = 5.", "2 + 2 = 4.", False),
        ("A cat is a pet.", "Once upon a time there was a cat.", False),
    ],
)
def test_an_answer_is_right_if_it_is_the_expected_one(text, answer, is_right):
    assert recordings.is_right(text, answer) is is_right


def test_any_whole_story_is_right_where_a_story_is_expected():
    rose, other = (
        f"Once upon a time there was a {hero} named Max. In the spring, Max planted a rose in the garden. He gave it "
        "water every day and waited patiently. After three weeks, a green flower opened, and Max gave it to his friend."
        for hero in ("mouse", "monkey")
    )
    assert recordings.is_right(rose, other)
    assert not recordings.is_right(rose.replace("Max gave", "Tom gave"), other)
    assert not recordings.is_right(rose, "The capital of France is Paris.")
