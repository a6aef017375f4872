"""`rollouts`: a page of the answers that a run has rewarded, since a reward that can be cheated is cheated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from llada_core.files import new_file
from training.errors import TrainingError
from training.stages.rollouts import ROLLOUTS_FILE, read_rollouts

PAGE = "rollouts.html"
_CURVE_WIDTH, _CURVE_HEIGHT = 900, 160


@dataclass(slots=True)
class Step:
    """A step of the run: the mean reward of all its answers, and some of its prompts with them."""

    number: int
    num_answers: int = 0
    total: float = 0.0
    groups: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def reward(self) -> float:
        return self.total / self.num_answers


def write_page(output_dir: Path, *, num_steps: int, num_prompts: int, log: Callable[[str], None]) -> None:
    """Write `rollouts.html` beside a run's `rollouts.jsonl`.

    Args:
        num_steps: steps whose answers are shown, spread over the run; the first and the last are among them.
        num_prompts: prompts shown of each.

    Raises:
        TrainingError: there are no rollouts.
    """
    file = output_dir / ROLLOUTS_FILE
    steps = _read_steps(file)
    if not steps:
        raise TrainingError(f"{file}: no rollouts; they are written by `llada-train grpo --output-dir {output_dir}`")
    shown = _spread(sorted(steps), num_steps)
    for record in read_rollouts(file):
        step = steps[record["step"]]
        if step.number in shown and len(step.groups) < num_prompts:
            step.groups.append(_best_first(record))
    template = Environment(loader=PackageLoader("training", "commands"), autoescape=True).get_template(f"{PAGE}.jinja")
    in_order = [steps[number] for number in sorted(steps)]
    page = template.render(
        run=output_dir.resolve().name,
        steps=in_order,
        shown=[step for step in in_order if step.number in shown],
        points=list(_curve(in_order)),
        width=_CURVE_WIDTH,
        height=_CURVE_HEIGHT,
    )
    with new_file(output_dir / PAGE) as aside:
        aside.write_text(page, encoding="utf-8")
    log(f"{len(shown)} of {len(steps)} steps in {output_dir / PAGE}")


def _read_steps(file: Path) -> dict[int, Step]:
    """The rewards of every step; their answers, of which there may be gigabytes, are not kept."""
    steps: dict[int, Step] = {}
    for record in read_rollouts(file):
        step = steps.setdefault(record["step"], Step(record["step"]))
        step.num_answers += len(record["rollouts"])
        step.total += sum(rollout["reward"] for rollout in record["rollouts"])
    return steps


def _spread(numbers: Sequence[int], count: int) -> set[int]:
    """At most `count` of the numbers, the last among them and, if there are two, the first."""
    if count == 1:
        return {numbers[-1]}
    return {numbers[index * (len(numbers) - 1) // (count - 1)] for index in range(count)}


def _best_first(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "rollouts": sorted(record["rollouts"], key=lambda rollout: -rollout["reward"])}


def _curve(steps: Sequence[Step]) -> Iterator[tuple[float, float]]:
    """The points of the mean reward over the steps, in pixels from the top left."""
    rewards = [step.reward for step in steps]
    first, last, low, high = steps[0].number, steps[-1].number, min(rewards), max(rewards)
    for step in steps:
        right = (step.number - first) / max(1, last - first)
        up = (step.reward - low) / (high - low or 1)
        yield round(right * _CURVE_WIDTH, 1), round((1 - up) * _CURVE_HEIGHT, 1)
