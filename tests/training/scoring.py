"""Rewards that tests name by their import path."""


def share_of_digits(prompt, text, record):
    """Something that a model of any quality has more or less of."""
    assert prompt[-1]["role"] == "user" and record["prompt"] == prompt[-1]["content"]
    return sum(character.isdigit() for character in text) / max(1, len(text))


def no_number(prompt, text, record):
    return float("nan")


def failing(prompt, text, record):
    raise KeyError(record["answer"])


three = 3
