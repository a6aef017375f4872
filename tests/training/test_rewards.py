"""Rewards: what they give, and what is said where they cannot give anything."""

import pytest

from training.errors import TrainingError
from training.rewards import Answered, parse_rewards, rewards_of

RECORD = {"prompt": "What is 3 + 4?", "answer": " 7 "}


def scores(text, *rewards, share=0.25):
    answered = Answered(RECORD, [{"role": "user", "content": RECORD["prompt"]}], text, share)
    return [reward.of(answered) for reward in rewards_of(rewards)]


@pytest.mark.parametrize(
    ("text", "reward", "score"),
    [
        ("7", "exact", 1),
        ("7\n", "exact", 1),
        ("7.", "exact", 0),
        ("3 + 4 = 7.", r"regex:\d+", 1),
        ("7 = 3 + 4", r"regex:\d+", 0),  # the last match
        ("7 = 3 + 4", r"regex:(\d) =", 1),
        ("seven", r"regex:\d+", 0),
        ("so:\n7", r"format:.*\d", 1),
        ("7.", r"format:\d", 0),
        ("7", "length", 0.75),
        ("7 or 8", "tests.training.scoring:share_of_digits", 2 / 6),
    ],
)
def test_a_reward_gives_its_score(text, reward, score):
    assert scores(text, reward) == [pytest.approx(score)]


def test_a_weight_stands_before_the_reward_and_is_no_part_of_its_name():
    found = rewards_of(["0.2*length", "-1*format:.*", "exact"])
    assert [(reward.name, reward.weight, reward.needs_answer) for reward in found] == [
        ("length", 0.2, False),
        ("format:.*", -1.0, False),
        ("exact", 1.0, True),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("right", "'right'; it must be exact, regex:PATTERN, format:PATTERN, length or module:function"),
        ("", "''; it must be exact"),
        ("2*", "'2*'; it must be exact"),
        ("0*exact", "the weight must be a number other than 0"),
        ("regex:(", "'(' is no regular expression"),
        ("format:", "has no pattern; write format:PATTERN"),
        ("my.module", "it must be exact"),
    ],
)
def test_a_reward_that_is_written_wrongly_is_named_with_the_rule(text, problem):
    with pytest.raises(ValueError) as error:
        parse_rewards([text])
    assert problem in str(error.value)


def test_a_reward_is_given_once():
    with pytest.raises(ValueError, match="'exact' is given twice; give it once with a weight"):
        parse_rewards(["exact", "2*exact"])


@pytest.mark.parametrize(
    ("reward", "problem"),
    [
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("tests.training.scoring:none", "cannot be imported: AttributeError"),
        ("tests.training.scoring:three", "is a int; it must be a function"),
    ],
)
def test_a_function_that_cannot_be_called_is_named_before_the_run(reward, problem):
    with pytest.raises(TrainingError) as error:
        rewards_of([reward])
    assert f"--reward {reward} {problem}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("no_number", "gave nan; a score must be a number from -1 to 1"), ("failing", "raised KeyError: ' 7 '")],
)
def test_a_function_that_fails_is_named_with_the_prompt_and_the_answer(name, problem):
    with pytest.raises(TrainingError) as error:
        scores("It is 7.", f"tests.training.scoring:{name}")
    assert str(error.value) == (
        f"--reward tests.training.scoring:{name} {problem}, for the prompt 'What is 3 + 4?' and the answer 'It is 7.'"
    )
