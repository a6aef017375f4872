"""Rewards of answers: built-in ones by name, or a Python function by its import path.

A reward is written `NAME`, `NAME:PATTERN` or `module:function`, with a weight before it: `0.2*length`. Each gives a
score from -1 to 1, and an answer's reward is the weighted sum of its scores.

| reward           | score                                                                                         |
|------------------|-----------------------------------------------------------------------------------------------|
| `exact`          | 1 if the text is the record's answer, but for spaces around it                                 |
| `regex:PATTERN`  | 1 if the last match of the pattern (its first group, if it has one) is the record's answer     |
| `format:PATTERN` | 1 if the pattern matches the whole text                                                        |
| `length`         | 1 less the share of the canvas that the answer fills                                           |
| `module:function`| `function(prompt, text, record)`: the turns before the answer, the text, and the data's record |
"""

import importlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from training.errors import TrainingError

_NAME = re.compile(r"(?:(?P<weight>-?\d+(?:\.\d+)?|-?\.\d+)\*)?(?P<name>.+)", re.DOTALL)
_FUNCTION = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.\w+)*):(?P<function>[A-Za-z_]\w*)")
_LONGEST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Answered:
    """A text that the model wrote, and the question it answers.

    Attributes:
        record: the data's record: `prompt` or `messages`, `answer` if it has one, and whatever else it says.
        prompt: the turns before the answer, each with `role` and `content`.
        share: the tokens of the answer, as a share of the canvas.
    """

    record: Mapping[str, Any]
    prompt: Sequence[Mapping[str, str]]
    text: str
    share: float


Score = Callable[[Answered], float]


@dataclass(frozen=True, slots=True)
class Reward:
    """A weighted score.

    Attributes:
        name: as it was written, without its weight.
        needs_answer: whether the score compares with the record's `answer`.
    """

    name: str
    weight: float
    needs_answer: bool
    score: Score

    def of(self, answered: Answered) -> float:
        """Score an answer, without the weight.

        Raises:
            TrainingError: the function failed, or its score is no number from -1 to 1; names reward, prompt and answer.
        """
        try:
            score = self.score(answered)
        except Exception as error:  # a user's function may raise anything
            raise self._problem(f"raised {type(error).__name__}: {error}", answered) from error
        if not isinstance(score, Real) or not -1 <= score <= 1:  # NaN is in no interval
            raise self._problem(f"gave {score!r}; a score must be a number from -1 to 1", answered)
        return float(score)

    def _problem(self, what: str, answered: Answered) -> TrainingError:
        asked, text = _shortened(answered.prompt[-1]["content"]), _shortened(answered.text)
        return TrainingError(f"--reward {self.name} {what}, for the prompt {asked} and the answer {text}")


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """A reward as it is written; the function of an import path is not imported yet."""

    name: str
    weight: float
    kind: str
    argument: str


def parse_rewards(texts: Sequence[str]) -> list[RewardSpec]:
    """Read how rewards are written; no function is imported.

    Raises:
        ValueError: names the reward and the rule.
    """
    specs = [_parse(text) for text in texts]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given twice; give it once with a weight, 2*{name}")
    return specs


def rewards_of(texts: Sequence[str]) -> tuple[Reward, ...]:
    """Build rewards from how they are written.

    Raises:
        ValueError: one is not written as a reward.
        TrainingError: a function cannot be imported.
    """
    return tuple(_build(spec) for spec in parse_rewards(texts))


def _parse(text: str) -> RewardSpec:
    match = _NAME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r}; it must be exact, regex:PATTERN, format:PATTERN, length or module:function")
    name, weight = match["name"], float(match["weight"] or 1)
    if weight == 0 or not math.isfinite(weight):
        raise ValueError(f"{text!r}: the weight must be a number other than 0")
    kind, _, argument = name.partition(":")
    if name in ("exact", "length"):
        return RewardSpec(name, weight, name, "")
    if kind in ("regex", "format"):
        try:
            re.compile(argument)
        except re.error as error:
            raise ValueError(f"{text!r}: {argument!r} is no regular expression: {error}") from None
        if not argument:
            raise ValueError(f"{text!r} has no pattern; write {kind}:PATTERN")
        return RewardSpec(name, weight, kind, argument)
    if _FUNCTION.fullmatch(name) is None:
        raise ValueError(f"{text!r}; it must be exact, regex:PATTERN, format:PATTERN, length or module:function")
    return RewardSpec(name, weight, "function", name)


def _build(spec: RewardSpec) -> Reward:
    needs_answer = spec.kind in ("exact", "regex")
    return Reward(spec.name, spec.weight, needs_answer, _SCORES[spec.kind](spec.argument))


def _last_match(text: str) -> Score:
    pattern = re.compile(text)

    def score(answered: Answered) -> float:
        last = None
        for match in pattern.finditer(answered.text):
            last = match[1] if pattern.groups else match[0]
        return float(last is not None and last.strip() == answered.record["answer"].strip())

    return score


def _whole_match(text: str) -> Score:
    pattern = re.compile(text, re.DOTALL)
    return lambda answered: float(pattern.fullmatch(answered.text.strip()) is not None)


def _calling(path: str) -> Score:
    module_name, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except Exception as error:  # the module is the user's, and may raise anything
        raise TrainingError(
            f"--reward {path} cannot be imported: {type(error).__name__}: {error}; its module must be in a folder of "
            "PYTHONPATH"
        ) from error
    if not callable(function):
        raise TrainingError(f"--reward {path} is a {type(function).__name__}; it must be a function")
    return lambda answered: function(answered.prompt, answered.text, answered.record)


# From what follows the kind of a reward to its score.
_SCORES: Mapping[str, Callable[[str], Score]] = {
    "exact": lambda _: lambda answered: float(answered.text.strip() == answered.record["answer"].strip()),
    "regex": _last_match,
    "format": _whole_match,
    "length": lambda _: lambda answered: 1 - answered.share,
    "function": _calling,
}


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[: _LONGEST_SHOWN - 3]}..."
