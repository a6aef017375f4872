"""Where the figures of a run go besides `metrics.jsonl`: TensorBoard files, and Weights & Biases."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from llada_core.files import new_file
from training.errors import TrainingError
from training.files import RUN_FILE


class Tracker(Protocol):
    """Takes the figures and texts of steps, which may come again after a run was resumed."""

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...

    def text(self, step: int, name: str, text: str) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `OUTPUT/tensorboard`; what they hold of later steps than `first_step` is void."""

    def __init__(self, output_dir: Path, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(output_dir / "tensorboard"), purge_step=first_step + 1)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, number in figures.items():
            self._writer.add_scalar(name, number, step)

    def text(self, step: int, name: str, text: str) -> None:
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run of the project, with the options of `run.yaml`; a run that is resumed goes on in the same one.

    Its own environment variables decide the rest: `WANDB_MODE=offline`, `WANDB_ENTITY`, `WANDB_API_KEY`.
    """

    def __init__(self, project: str, output_dir: Path) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise TrainingError("--wandb-project needs wandb: pip install 'llada[wandb]'") from None
        id_file = output_dir / "wandb" / "run-id"
        if not id_file.exists():
            id_file.parent.mkdir(exist_ok=True)
            with new_file(id_file) as aside:
                aside.write_text(secrets.token_hex(4))
        self._run: Any = wandb.init(
            project=project,
            name=output_dir.name,
            id=id_file.read_text(),
            resume="allow",
            dir=output_dir,
            config=yaml.safe_load((output_dir / RUN_FILE).read_text()),
        )
        # Its own counter of steps only grows, and a resumed run goes back to its checkpoint.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({**figures, "step": step})

    def text(self, step: int, name: str, text: str) -> None:
        self._run.log({f"answers/{name}": text, "step": step})

    def close(self) -> None:
        self._run.finish()
