"""The reports of a run: progress, `metrics.jsonl`, trackers, a plot of loss and reward."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from llada_core.files import new_file
from training.data.shards import OnProgress
from training.errors import TrainingError
from training.run.trackers import TensorBoard, Tracker, WeightsAndBiases


class Reporter:
    """Reports on the main process; the others are silent.

    A terminal gets a progress bar; any other output gets a line for every record.
    """

    def __init__(self, output_dir: Path, *, is_main: bool, wandb_project: str | None = None) -> None:
        self._is_main = is_main
        self._metrics_file = output_dir / "metrics.jsonl"
        self._output_dir = output_dir
        self._wandb_project = wandb_project
        # Read `sys.stdout` now: tests and notebooks replace it.
        self._console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
        self._trackers: list[Tracker] = []
        self._progress: Progress | None = None
        self._task: Any = None

    def say(self, text: str) -> None:
        """Print a line for the user."""
        if self._is_main:
            self._console.print(text)

    @contextmanager
    def tokenizing(self) -> Iterator[OnProgress]:
        """Show a progress bar for one source after the other; yields the function that advances it."""
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        is_shown = self._is_main and self._console.is_terminal
        with Progress(*columns, console=self._console, disable=not is_shown, transient=True) as progress:
            task = progress.add_task("tokenising", total=1.0)

            def advance(name: str, count: int, share: float | None) -> None:
                total = None if share is None else 1.0
                progress.update(task, description=f"{name}: {count:,} samples", total=total, completed=share or 0.0)

            yield advance

    @contextmanager
    def run(self, *, first_step: int, max_steps: int) -> Iterator[None]:
        """Show the progress of the training loop. Records after `first_step` are dropped: those steps are run again."""
        if not self._is_main:
            yield
            return
        kept = [record for record in self.records() if record["step"] <= first_step] if first_step else []
        with new_file(self._metrics_file) as aside:
            aside.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._trackers = [TensorBoard(self._output_dir, first_step=first_step)]
        if self._wandb_project is not None:
            self._trackers.append(WeightsAndBiases(self._wandb_project, self._output_dir))
        # Narrow enough for 80 columns beside the figures.
        bar = BarColumn(bar_width=10)
        columns = (TextColumn("{task.description}"), bar, MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as self._progress:
            self._task = self._progress.add_task("training", total=max_steps, completed=first_step)
            try:
                yield
            finally:
                for tracker in self._trackers:
                    tracker.close()

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def log(self, record: dict[str, Any], line: str, *, figures: str | None = None) -> None:
        """Append a record to metrics.jsonl, and show it as a line.

        Args:
            figures: shown beside a terminal's progress bar instead of the line; the bar has step and time left.
        """
        if not self._is_main:
            return
        try:
            with self._metrics_file.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{self._metrics_file} cannot be written: {error.strerror}; --resume continues from the last checkpoint"
            ) from None
        figures_by_name = _flat(record)
        for tracker in self._trackers:
            tracker.log(record["step"], figures_by_name)
        if self._progress is not None and self._console.is_terminal and figures is not None:
            self._progress.update(self._task, description=figures)
        else:
            self._console.print(line)

    def samples(self, step: int, texts: dict[str, str]) -> None:
        """Show the answers of a validation, by prompt."""
        if self._is_main:
            for prompt, text in texts.items():
                self._console.print(f"  {prompt!r} → {text!r}")
                for tracker in self._trackers:
                    tracker.text(step, prompt, text)

    def records(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl; a line that a kill or a damaged disk left unreadable is passed over."""
        if not self._metrics_file.exists():
            return []
        records = []
        for line in self._metrics_file.read_bytes().splitlines():
            with suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    records.append(record)
        return records

    def draw_curves(self, *, val_loss: str, watched: str | None) -> None:
        """Plot training and validation loss over the steps into `loss.png`, and below them what else is watched.

        Args:
            val_loss: what the validation loss is.
            watched: the name of a figure.
        """
        records = self.records()
        if not self._is_main or not records:
            return
        from matplotlib.figure import Figure

        panels = [("loss", {"loss": "training loss", "val_loss": f"validation: {val_loss}"})]
        if watched is not None:
            panels.append((watched.replace("_", " "), {watched: "training", f"val_{watched}": "validation"}))
        figure = Figure(figsize=(8, 0.5 + 4 * len(panels)))
        # Fixed margins: a layout that is worked out draws everything twice, for half of the time.
        figure.subplots_adjust(top=0.97, right=0.97)
        for axes, (unit, labels) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
            for name, label in labels.items():
                points = [(record["step"], record[name]) for record in records if name in record]
                if points:
                    marker = "." if name.startswith("val_") else ""
                    axes.plot(*zip(*points, strict=True), label=label, linewidth=1, marker=marker)
            axes.set_ylabel(unit)
            axes.grid(alpha=0.3)
            axes.legend()
        axes.set_xlabel("optimizer step")
        figure.savefig(self._output_dir / "loss.png", dpi=120)


def _flat(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by name, those of a table as `name/key`."""
    tables = (
        {f"{name}/{key}": number for key, number in value.items()} if isinstance(value, dict) else {name: value}
        for name, value in record.items()
        if name != "step"
    )
    return {name: number for table in tables for name, number in table.items() if number is not None}


@contextmanager
def progress_bar(description: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yields the function that sets how much is done."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.update(task, completed=done)
