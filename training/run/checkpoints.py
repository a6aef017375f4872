"""Checkpoints of a run: `checkpoints/step-<n>/`, renamed into place once written, so that each one is complete.

Weights and optimizer are written by torch.distributed.checkpoint: every process writes its part, and any number of
processes can read it. Each checkpoint also has `state.json`, the config and the tokenizer, so that it can be exported
without the rest of the run.
"""

import errno
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from llada_core.files import make_empty, remove_folder, remove_incomplete, replace_folder
from llada_core.memory import is_out_of_memory
from llada_core.model.network import Network
from training.distributed import World
from training.errors import TrainingError
from training.integrity import DamagedError
from training.run.identity import SCHEDULE, differences
from training.run.safe_reader import SafePlanner, SafeReader
from training.run.schedule import Schedule
from training.run.state import (
    RunIdentity,
    State,
    all_checkpoints,
    best_checkpoint,
    read_intact,
    read_state,
    write_state,
)
from training.run.weight_average import WeightAverage

_ROOM_OF_A_FULL_DISK = 1 << 20
_AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Learned:
    """Everything that training changes; `average` is None without `--ema-decay`."""

    model: Network
    optimizers: list[torch.optim.Optimizer]
    average: WeightAverage | None

    def tensors(self) -> dict[str, Any]:
        """All of it by name; under FSDP2 this process's shards."""
        tensors = {"model": _trained(self.model), "optimizer": get_optimizer_state_dict(self.model, self.optimizers)}
        return tensors if self.average is None else {**tensors, _AVERAGE: self.average.tensors}


class Checkpoints:
    """Writes and reads the checkpoints of one run.

    Args:
        keep_last: the number of newest checkpoints to keep, besides the best by validation loss.
        resume_from: the step to continue from; None for the newest.
        run: stored in each checkpoint, and compared before one is restored.
        copy_files: copies the files that an export needs beside the weights into a folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int,
        resume_from: int | None,
        run: RunIdentity,
        copy_files: Callable[[Path], None],
        world: World,
    ) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._resume_from = resume_from
        self._run = run
        self._copy_files = copy_files
        self._world = world

    def save(self, learned: Learned, *, step: int, val_loss: float | None, val_losses: Sequence[float]) -> None:
        """Write a checkpoint and delete old ones; every process takes part. For the losses see `State`.

        Raises:
            TrainingError: it cannot be written; the checkpoints before it are still there.
        """
        try:
            self._write(learned, State(step, val_loss, tuple(val_losses), self._run))
        except TrainingError:
            raise
        except (OSError, RuntimeError, CheckpointException) as error:
            cause = _cause(error)
            if is_out_of_memory(cause):
                raise cause from None
            reason = "the disk is full" if _is_full(self._folder, cause) else cause
            if self._world.is_main:
                remove_incomplete(self._folder)
            raise self._world.error(
                f"{self._folder}: step-{step} cannot be written: {reason}; "
                "--resume continues from the checkpoint before"
            ) from None

    def restore(self, learned: Learned, *, say: Callable[[str], None]) -> State | None:
        """Read the newest undamaged checkpoint into `learned`; None if there are no checkpoints.

        Args:
            say: told what is damaged.

        Raises:
            TrainingError: it belongs to a run whose data or decisive options differ; the message names these. Or every
                checkpoint is damaged.
        """
        checkpoint, damage = self._world.from_main(self._newest_intact)
        for problem in damage:
            say(f"warning: {problem}; going on from the checkpoint before")
        if checkpoint is None:
            return None
        state = read_state(checkpoint)
        self._require_same_run(state, checkpoint)
        tensors = learned.tensors()
        with _without_single_process_warning():
            _read(tensors, checkpoint, no_dist=self._world.size == 1)
        set_model_state_dict(learned.model, tensors["model"], options=StateDictOptions(strict=False))
        set_optimizer_state_dict(learned.model, learned.optimizers, tensors["optimizer"])
        return state

    def _require_same_run(self, state: State, checkpoint: Path) -> None:
        """Check that the run's data and options are those of the checkpoint, and its learning rates those so far."""
        then, now = (dict(run.decisive) for run in (state.run, self._run))
        old, new = then.pop(SCHEDULE, None), now.pop(SCHEDULE)
        differing = differences(then, now)
        if differing:
            raise TrainingError(
                f"{checkpoint.name} belongs to another run: {differing}. Resume with the same options and data, "
                "or start from its export with --model-name-or-path in a new --output-dir"
            )
        step = Schedule(**new).first_difference(old, before=state.step) if old is not None else None
        if step is not None:
            raise TrainingError(
                f"{checkpoint.name} belongs to another run: step {step + 1} had the learning rate "
                f"{Schedule(**old).rate_at(step):.3g} and would now have {Schedule(**new).rate_at(step):.3g} "
                f"({differences(old, new)}). A longer run may go on from a checkpoint before the decay: --resume-from"
            )

    def _newest_intact(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint to continue from that is not damaged, and what is wrong with newer ones."""
        damage, checkpoints = [], all_checkpoints(self._folder)
        if self._resume_from is not None:
            named = [checkpoint for checkpoint in checkpoints if checkpoint.name == f"step-{self._resume_from}"]
            if not named:
                present = ", ".join(checkpoint.name for checkpoint in checkpoints) or "no checkpoint"
                raise TrainingError(f"--resume-from {self._resume_from}: {self._folder} has {present}")
            checkpoints = named
        for checkpoint in reversed(checkpoints):
            try:
                read_intact(checkpoint)
            except DamagedError as error:
                damage.append(str(error))
            else:
                return checkpoint, damage
        if damage and self._resume_from is not None:
            raise TrainingError(f"{damage[0]}; choose another step for --resume-from")
        if damage:
            raise TrainingError(f"{'; '.join(damage)}; no other checkpoint is left. Start again in a new --output-dir")
        return None, []

    def _write(self, learned: Learned, state: State) -> None:
        aside = self._folder / f"incomplete-{state.step}"

        def begin() -> None:
            remove_incomplete(self._folder)
            make_empty(aside)

        def complete() -> None:
            learned.model.config.save(aside)
            self._copy_files(aside)
            write_state(aside, state)
            replace_folder(aside, self._folder / f"step-{state.step}")
            self._remove_old(state.step)

        self._world.from_main(begin)
        with _without_single_process_warning():
            state_dict_saver.save(learned.tensors(), checkpoint_id=aside, no_dist=self._world.size == 1)
        self._world.from_main(complete)

    def _remove_old(self, step: int) -> None:
        for checkpoint in all_checkpoints(self._folder):
            # Left by a run that was abandoned for an earlier step, or damaged.
            if int(checkpoint.name.removeprefix("step-")) > step:
                remove_folder(checkpoint)
        checkpoints, best = all_checkpoints(self._folder), best_checkpoint(self._folder)
        kept = {*checkpoints[-self._keep_last :], *([best[0]] if best else [])}
        for checkpoint in checkpoints:
            if checkpoint not in kept:
                remove_folder(checkpoint)


def read_weights(model: Network, checkpoint: Path, *, averaged: bool) -> None:
    """Read the trained weights into a model that has the same ones (adapters included), on one process.

    Args:
        averaged: read their average, which the checkpoint of a run with `--ema-decay` has.
    """
    name = _AVERAGE if averaged else "model"
    tensors = {name: _trained(model)}
    with _without_single_process_warning():
        _read(tensors, checkpoint, no_dist=True)
    set_model_state_dict(model, tensors[name], options=StateDictOptions(strict=False))


def _cause(error: BaseException) -> BaseException:
    """The error of the first process that failed."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _is_full(folder: Path, cause: BaseException) -> bool:
    """Whether a write failed because the disk has no room; torch's writer does not say so."""
    return getattr(cause, "errno", None) == errno.ENOSPC or shutil.disk_usage(folder).free < _ROOM_OF_A_FULL_DISK


def _trained(model: Network) -> dict[str, Any]:
    """The trained weights: with LoRA only the adapters, since the frozen weights are the base model's."""
    return dict(get_model_state_dict(model, options=StateDictOptions(ignore_frozen_params=True)))


def _read(tensors: dict[str, Any], checkpoint: Path, *, no_dist: bool) -> None:
    """Read a checkpoint into `tensors`, in place.

    Raises:
        TrainingError: the checkpoint is damaged, or holds more than data.
    """
    try:
        state_dict_loader.load(tensors, storage_reader=SafeReader(checkpoint), planner=SafePlanner(), no_dist=no_dist)
    except CheckpointException as error:
        reason = str(error).strip().splitlines()[-1]
        if "block boundary" in reason:
            reason = "its 8-bit moments are sharded; they go on with as many processes as wrote them"
        raise TrainingError(f"{checkpoint} cannot be read: {reason}") from None


@contextmanager
def _without_single_process_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
