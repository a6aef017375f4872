"""The steps of a run: how many there are, and which samples each one has."""

import math
from dataclasses import dataclass, replace

from training.data.batches import Batching, BatchPlanner
from training.data.samples import Samples
from training.distributed import World
from training.run.schedule import Schedule
from training.run.start import Start
from training.run.stream import Stream, StreamPlanner
from training.stages.base import Stage

Planner = BatchPlanner | StreamPlanner


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The planner of every step, and the learning rates."""

    planner: Planner
    schedule: Schedule

    @property
    def max_steps(self) -> int:
        """The number of steps."""
        return self.schedule.max_steps


def plan_run(start: Start, samples: Samples | Stream, world: World, *, num_samples: int | None = None) -> RunPlan:
    """Plan a run over `samples`.

    Args:
        num_samples: how many an epoch has, if `samples` are only some of them.

    Raises:
        TrainingError: the processes cannot share a batch evenly.
    """
    options = start.options
    batching = Batching(
        batch_size=options.batch_size,
        seed=options.seed,
        eos_id=start.model.special_tokens.eos_id,
        group_by_length=options.group_by_length,
        stratified_noise=options.stratified_noise,
        repeats=start.stage.steps_per_batch,
    )
    planner = _planner(start.stage, samples, batching)
    if planner.batch_size % world.size:
        few = ", all that the data has" if planner.batch_size < options.batch_size else ""
        raise world.error(
            f"a batch has {planner.batch_size} samples{few}; it must be a multiple of the {world.size} processes"
        )
    max_steps = options.max_steps
    if max_steps is None:
        assert options.num_epochs is not None and not isinstance(samples, Stream)
        # Of samples, not of full batches: three passes over 63 samples are six steps of 32.
        num_batches = math.ceil(options.num_epochs * (num_samples or len(samples)) / planner.batch_size)
        max_steps = max(1, num_batches) * planner.repeats
    return RunPlan(planner, Schedule.of(options, max_steps=max_steps))


def _planner(stage: Stage, samples: Samples | Stream, batching: Batching) -> Planner:
    if not isinstance(samples, Stream):
        return stage.planner(samples, batching)

    def plan_part(part: Samples, seed: int) -> BatchPlanner:
        return stage.planner(part, replace(batching, seed=seed))

    return StreamPlanner(
        samples, plan_part, batch_size=batching.batch_size, seed=batching.seed, repeats=batching.repeats
    )
