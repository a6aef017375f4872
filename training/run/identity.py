"""The identity of a run: everything that decides its loss curve."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.options.fields import TrainingOptions
from training.run.digests import config_digest, weights_digest
from training.run.samples import RunSamples
from training.run.schedule import Schedule
from training.run.start import Start
from training.run.state import RunIdentity, newest_state

# Options that may change when a run resumes: where and how fast it runs and what it shows, not its result.
_MAY_CHANGE = {
    "output_dir", "data_cache_dir", "resume", "resume_from", "device", "threads", "strategy", "micro_batch_size",
    "activation_checkpointing", "save_steps", "keep_last", "log_steps", "eval_steps", "eval_prompt", "eval_gen_length",
    "early_stopping", "adapter_only", "wandb_project",
}  # fmt: skip
# Options compared by what they stand for: tokens, learning rates, a config, weights. A folder may have moved.
_COMPARED_BY_CONTENT = {
    "model_name_or_path", "model_config_file", "tokenizer", "train_data_path", "val_data_path", "columns",
    "max_bad_lines", "num_epochs", "max_steps", "learning_rate", "lr_schedule", "warmup_steps", "decay_fraction",
    "min_lr_ratio", "adapter",
}  # fmt: skip
# The entry of `RunIdentity.decisive` that holds the fields of the schedule.
SCHEDULE = "schedule"


def identity_of(start: Start, samples: RunSamples, schedule: Schedule) -> RunIdentity:
    """The identity of the run that trains `start` on `samples`."""
    model, lora = start.model, start.lora
    content = {
        "command": start.stage.name,
        SCHEDULE: asdict(schedule),
        "training data": samples.training.digest,
        # Validation data decides which checkpoint is the best.
        "validation data": None if samples.validation is None else samples.validation.digest,
        "model config": config_digest(model.config),
        "tokenizer": model.tokenizer.fingerprint,
        "base model's weights": None if model.folder is None else weights_digest(model.folder),
        "adapter": None if start.options.adapter is None else weights_digest(start.options.adapter),
    }
    return RunIdentity(
        {**_decisive_options(start.options), **content},
        special_tokens=asdict(model.special_tokens),
        base_model=None if model.folder is None else str(model.folder.resolve()),
        lora=None if lora is None else asdict(lora),
    )


def differences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The entries of `RunIdentity.decisive` that differ, in words; empty if none does."""
    then, now = ({**entries, **(entries.get(SCHEDULE) or {}), SCHEDULE: None} for entries in (then, now))
    return "; ".join(
        f"{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if then.get(name) != now.get(name)
    )


def require_same_options(options: TrainingOptions) -> None:
    """Check that a finished run used the current options and starting model. Its data is not read.

    Raises:
        TrainingError: names the folder and what differs.
    """
    last = newest_state(options.output_dir / "checkpoints")
    if last is None:
        return
    then, now = last.run.decisive, _decisive_options(options)
    for name in _decided_later(options):
        now.pop(name)
    now[SCHEDULE] = asdict(Schedule.of(options, max_steps=options.max_steps or then[SCHEDULE]["max_steps"]))
    if options.model_name_or_path is not None and Path(options.model_name_or_path).is_dir():
        now["base model's weights"] = weights_digest(Path(options.model_name_or_path))
    differing = differences(then, {**then, **now})
    if differing:
        raise TrainingError(
            f"{options.output_dir} was finished from another start: {differing}. Choose another output_dir, or delete "
            "the folder to train again"
        )


def _decided_later(options: TrainingOptions) -> list[str]:
    """Options that the model or an adapter decides, since they were not given."""
    of_adapter = ["lora_r", "lora_alpha"] if options.adapter is not None else []
    of_model = ["lora_target_modules"] if not options.lora_target_modules or of_adapter else []
    return [*(["max_length"] if options.max_length is None else []), *of_model, *of_adapter]


def _decisive_options(options: TrainingOptions) -> dict[str, Any]:
    """The options that a resumed run must share, as JSON values."""
    # The number of validation samples decides which checkpoint is the best, if there are any.
    unused = set() if options.has_validation else {"eval_samples"}
    decisive: dict[str, Any] = json.loads(options.model_dump_json(exclude=_MAY_CHANGE | _COMPARED_BY_CONTENT | unused))
    return decisive
