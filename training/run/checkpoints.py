"""Checkpoints of a run: `checkpoints/step-<n>/`, written aside and renamed, so that one that exists is whole.

Weights and optimizer are written by torch.distributed.checkpoint: every process writes its part, and any number of
processes reads it. Beside them lie `state.json`, and config and tokenizer, so that a checkpoint can be exported alone.
"""

import json
import math
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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

from llada_core.model.architectures.llada.network import LLaDAModelLM
from training.distributed import World
from training.errors import TrainingError
from training.run.memory import is_out_of_memory
from training.run.safe_reader import SafePlanner, SafeReader
from training.run.start import num_parameters


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What a checkpoint knows of its run.

    Attributes:
        decisive: what decides the curve, options and data; a run that resumes must have the same.
        special_tokens: the ids, by the names of `SpecialTokens`.
        base_model: the checkpoint that training started from, None for random weights.
        lora: the fields of `LoraParams`, None where all weights are trained.
    """

    decisive: dict[str, Any]
    special_tokens: dict[str, Any]
    base_model: str | None
    lora: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class State:
    """The content of `state.json`. `val_loss`: nats per token; None where there was no validation at this step."""

    step: int
    val_loss: float | None
    run: RunIdentity


class Checkpoints:
    """The checkpoints of one output folder."""

    def __init__(self, folder: Path, *, keep_last: int, world: World) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._world = world

    def save(
        self, model: LLaDAModelLM, optimizer: torch.optim.Optimizer, state: State, *, tokenizer_file: Path
    ) -> None:
        """Write one; every process takes part. Older ones go, but for the last few and the best.

        Raises:
            TrainingError: it cannot be written; what was there before is still there.
        """
        try:
            self._write(model, optimizer, state, tokenizer_file)
        except TrainingError:
            raise
        except (OSError, RuntimeError, CheckpointException) as error:
            cause = _cause(error)
            if is_out_of_memory(cause):
                raise cause from None
            raise self._world.error(
                f"{self._folder}: step-{state.step} cannot be written: {cause}; --resume continues from the "
                "checkpoint before"
            ) from None

    def _write(self, model: LLaDAModelLM, optimizer: torch.optim.Optimizer, state: State, tokenizer_file: Path) -> None:
        aside, final = self._folder / f"incomplete-{state.step}", self._folder / f"step-{state.step}"

        def make_room() -> None:
            drop_incomplete(self._folder)
            aside.mkdir(parents=True)

        def complete() -> None:
            (aside / "config.json").write_text(model.config.to_json_string())
            shutil.copyfile(tokenizer_file, aside / "tokenizer.json")
            (aside / "state.json").write_text(json.dumps(asdict(state), indent=1))
            if final.exists():
                _remove(final)
            aside.rename(final)
            self._drop_old()

        self._world.from_main(make_room)
        with _one_process_is_meant():
            state_dict_saver.save(_tensors(model, optimizer), checkpoint_id=aside, no_dist=self._world.size == 1)
        self._world.from_main(complete)

    def restore(self, model: LLaDAModelLM, optimizer: torch.optim.Optimizer, run: RunIdentity) -> State | None:
        """Read the newest one into model and optimizer; None where there is none.

        Raises:
            TrainingError: it belongs to a run that differs in what decides the curve; names what differs.
        """
        folder = newest(self._folder)
        if folder is None:
            return None
        state = read_state(folder)
        differing = differences(state.run.decisive, run.decisive)
        if differing:
            raise TrainingError(
                f"{folder.name} belongs to another run: {differing}. Resume with the same options and data, "
                "or start from its export with --model-name-or-path in a new --output-dir"
            )
        tensors = _tensors(model, optimizer)
        with _one_process_is_meant():
            _load(tensors, folder, no_dist=self._world.size == 1)
        set_model_state_dict(model, tensors["model"], options=StateDictOptions(strict=False))
        set_optimizer_state_dict(model, optimizer, tensors["optimizer"])
        return state

    @staticmethod
    def best_in(folder: Path) -> tuple[Path, float] | None:
        """The one with the lowest validation loss, and that loss."""
        measured = [(read_state(checkpoint).val_loss, checkpoint) for checkpoint in _all(folder)]
        found = min(((loss, checkpoint) for loss, checkpoint in measured if loss is not None), default=None)
        return None if found is None else (found[1], found[0])

    def _drop_old(self) -> None:
        best = self.best_in(self._folder)
        kept = {*_all(self._folder)[-self._keep_last :], *([best[0]] if best else [])}
        for folder in _all(self._folder):
            if folder not in kept:
                _remove(folder)


def drop_incomplete(folder: Path) -> None:
    """What a save that was stopped left behind, as large as a checkpoint."""
    for old in folder.glob("incomplete-*"):
        shutil.rmtree(old)


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint in a `checkpoints` folder."""
    found = _all(folder)
    return found[-1] if found else None


def read_state(folder: Path) -> State:
    content = json.loads((folder / "state.json").read_text())
    return State(content["step"], content["val_loss"], RunIdentity(**content["run"]))


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What of `RunIdentity.decisive` differs, in words; empty if nothing does."""
    return "; ".join(
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if then.get(name) != now.get(name)
    )


def load_weights(model: LLaDAModelLM, folder: Path) -> None:
    """Read a checkpoint's trained weights into a model that has the same ones (adapters included), on one process."""
    tensors = {"model": _trainable(model)}
    with _one_process_is_meant():
        _load(tensors, folder, no_dist=True)
    set_model_state_dict(model, tensors["model"], options=StateDictOptions(strict=False))


def require_room(folder: Path, model: torch.nn.Module, *, num_kept: int) -> None:
    """Find out now, not at the first checkpoint or the last, that the disk is too full.

    Args:
        num_kept: checkpoints that stay, the best one included where there will be one.

    Raises:
        TrainingError: names the folder, what is needed and what is free.
    """
    total, trained = num_parameters(model)
    # Weights and both of AdamW's moments in float32, beside those kept one being written; the model in bfloat16.
    num_missing = max(1, num_kept + 1 - len(_all(folder / "checkpoints")))
    needed = trained * 12 * num_missing + total * 2
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainingError(
            f"--output-dir {folder}: {math.ceil(needed / 1e6):,} MB needed for checkpoints and the finished model, "
            f"{free // 10**6:,} MB free; lower --keep-last or choose another disk"
        )


def _cause(error: BaseException) -> BaseException:
    """What went wrong on the first process that failed."""
    return next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error


def _tensors(model: LLaDAModelLM, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"model": _trainable(model), "optimizer": get_optimizer_state_dict(model, optimizer)}


def _trainable(model: LLaDAModelLM) -> dict[str, Any]:
    """Under LoRA the adapters alone: the frozen weights are the base model's."""
    return dict(get_model_state_dict(model, options=StateDictOptions(ignore_frozen_params=True)))


def _load(tensors: dict[str, Any], folder: Path, *, no_dist: bool) -> None:
    """Into the tensors that are given.

    Raises:
        TrainingError: a damaged checkpoint, or one that holds more than data.
    """
    try:
        state_dict_loader.load(tensors, storage_reader=SafeReader(folder), planner=SafePlanner(), no_dist=no_dist)
    except CheckpointException as error:
        raise TrainingError(f"{folder} cannot be read: {str(error).strip().splitlines()[-1]}") from None


@contextmanager
def _one_process_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _remove(checkpoint: Path) -> None:
    """Under another name first: half of a checkpoint must not look like one."""
    aside = checkpoint.with_name(f"incomplete-{checkpoint.name}")
    checkpoint.rename(aside)
    shutil.rmtree(aside)


def _all(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))
