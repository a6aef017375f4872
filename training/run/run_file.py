"""`run.yaml`: what a run was, in a form that repeats it: `llada-train sft --config OUT/run.yaml --output-dir NEW`."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from llada_core.files import new_file
from training.distributed import World
from training.files import RUN_FILE
from training.options.fields import TrainingOptions
from training.options.sections import SECTIONS
from training.run.samples import RunSamples
from training.run.schedule import Schedule
from training.run.start import Start

# What concerns only one start of a run.
_OF_ONE_START = {"output_dir", "resume", "resume_from"}
_GIT_SECONDS = 10


def write_run_file(start: Start, samples: RunSamples, world: World, *, max_steps: int) -> None:
    """Write every option with the value it had, and what it was run on, data and code included."""
    options = start.options
    section = next(name for name, kind in SECTIONS.items() if type(options) is kind)
    output_dir = str(options.output_dir)
    content = {
        "output_dir": output_dir,
        section: {"output_dir": output_dir, **_values(options, max_steps=max_steps)},
        "provenance": {
            "llada": version("llada"),
            "commit": _commit(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            "processes": world.size,
            "device": str(world.device),
            "training_data": samples.training.digest,
            "validation_data": None if samples.validation is None else samples.validation.digest,
            "tokenizer": start.model.tokenizer.fingerprint,
        },
    }
    with new_file(options.output_dir / RUN_FILE) as aside:
        aside.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _values(options: TrainingOptions, *, max_steps: int) -> dict[str, Any]:
    """The options by the names that a config file uses, without those that were not in force."""
    unused = _OF_ONE_START | {"num_epochs"}
    if options.lora_r is None or options.adapter is not None:
        unused |= {"lora_r", "lora_alpha", "lora_target_modules"}
    values = options.model_dump(mode="json", by_alias=True, exclude=unused, exclude_none=True)
    warmup_steps = Schedule.of(options, max_steps=max_steps).warmup_steps
    return {**values, "max_steps": max_steps, "warmup_steps": warmup_steps}


def _commit() -> str | None:
    """The commit of the code, with a mark if files differ from it; None outside a git checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=_GIT_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
