"""The `checkpoints` folder of a run: its complete checkpoints, and what the `state.json` in each of them says."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.integrity import DamagedError, digests_of, read_sealed, require_intact, write_sealed

_FILE = "state.json"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The run that a checkpoint belongs to.

    Attributes:
        decisive: the options and data that decide the loss curve; a run that resumes must have the same.
        special_tokens: the ids, by the names of `SpecialTokens`.
        base_model: the checkpoint that training started from, None for random weights.
        lora: the fields of `LoraParams`, None if all weights are trained.
    """

    decisive: dict[str, Any]
    special_tokens: dict[str, Any]
    base_model: str | None
    lora: dict[str, Any] | None

    @property
    def is_averaged(self) -> bool:
        """Whether the weights to publish are the average of those trained."""
        return self.decisive.get("ema_decay") is not None


@dataclass(frozen=True, slots=True)
class State:
    """The content of `state.json`.

    Attributes:
        val_loss: in nats per token, None if this step was not validated.
        val_losses: those of all validations until this step, in their order; the first is of the starting model.
    """

    step: int
    val_loss: float | None
    val_losses: tuple[float, ...]
    run: RunIdentity


def read_state(checkpoint: Path) -> State:
    """Read the state of a checkpoint.

    Raises:
        DamagedError: `state.json` is not what was written.
    """
    return _state(read_sealed(checkpoint / _FILE))


def read_intact(checkpoint: Path) -> State:
    """Read the state of a checkpoint, after a check of all of its files.

    Raises:
        DamagedError: names a file that is missing or is not what was written.
    """
    content = read_sealed(checkpoint / _FILE)
    require_intact(checkpoint, content["files"], but=_FILE)
    return _state(content)


def write_state(checkpoint: Path, state: State) -> None:
    """Write the state of a checkpoint, and the digest of every other file in it."""
    write_sealed(checkpoint / _FILE, {**asdict(state), "files": digests_of(checkpoint, but=_FILE)})


def all_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a `checkpoints` folder, oldest first."""
    checkpoints = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(checkpoints, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a `checkpoints` folder."""
    checkpoints = all_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def newest_state(folder: Path) -> State | None:
    """The newest state in a `checkpoints` folder that can be read."""
    for checkpoint in reversed(all_checkpoints(folder)):
        with suppress(DamagedError):
            return read_state(checkpoint)
    return None


def best_checkpoint(folder: Path) -> tuple[Path, float] | None:
    """The checkpoint with the lowest validation loss, and that loss; on a tie, the first by name."""
    measured = []
    for checkpoint in all_checkpoints(folder):
        with suppress(DamagedError):
            measured.append((read_state(checkpoint).val_loss, checkpoint))
    best = min(((loss, checkpoint) for loss, checkpoint in measured if loss is not None), default=None)
    return None if best is None else (best[1], best[0])


def _state(content: dict[str, Any]) -> State:
    return State(content["step"], content["val_loss"], tuple(content["val_losses"]), RunIdentity(**content["run"]))
