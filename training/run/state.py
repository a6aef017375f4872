"""The `checkpoints` folder of a run: its complete checkpoints, and what the `state.json` in each of them says."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


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


@dataclass(frozen=True, slots=True)
class State:
    """The content of `state.json`. `val_loss` is in nats per token, None if this step was not validated."""

    step: int
    val_loss: float | None
    run: RunIdentity


def read_state(checkpoint: Path) -> State:
    """Read the state of a checkpoint."""
    content = json.loads((checkpoint / "state.json").read_text())
    return State(content["step"], content["val_loss"], RunIdentity(**content["run"]))


def write_state(checkpoint: Path, state: State) -> None:
    """Write the state of a checkpoint."""
    (checkpoint / "state.json").write_text(json.dumps(asdict(state), indent=1))


def all_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a `checkpoints` folder, oldest first."""
    checkpoints = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(checkpoints, key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a `checkpoints` folder."""
    checkpoints = all_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def best_checkpoint(folder: Path) -> tuple[Path, float] | None:
    """The checkpoint with the lowest validation loss, and that loss; on a tie, the first by name."""
    measured = [(read_state(checkpoint).val_loss, checkpoint) for checkpoint in all_checkpoints(folder)]
    best = min(((loss, checkpoint) for loss, checkpoint in measured if loss is not None), default=None)
    return None if best is None else (best[1], best[0])
