"""The `pipeline` command: every stage of a config file, each on the output of the one before."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from training.commands.generate import run_generate
from training.commands.tokenizer import run_tokenizer
from training.data.sources import find_sources, split_share
from training.errors import TrainingError
from training.launch import read_launch
from training.options.fields import GenerateOptions
from training.options.file import RunConfig
from training.options.sections import MODEL_STAGES, TRAINING_STAGES
from training.run.dry_run import EXCERPT, describe_run
from training.run.identity import require_same_options
from training.run.run import run_training

_DONE_FILES = {"tokenizer": "tokenizer.json", **dict.fromkeys(MODEL_STAGES, "config.json")}
_DONE_ADAPTER = "adapter/adapter_config.json"


def run_pipeline(
    config: RunConfig, stage: str, *, prompts: Sequence[str], resume: bool, dry_run: bool, log: Callable[[str], None]
) -> None:
    """Run one stage or, for `all`, every stage in the file; inference runs only if there are prompts.

    Args:
        prompts: replace the file's `inference.prompt` or `inference.input`.
        resume: skip finished stages, and continue a started one from its newest checkpoint.

    Raises:
        TrainingError: an unknown stage, or one whose section or starting point is missing.
    """
    _require_possible(config, stage, prompts)
    stages = [name for name in config.stages if stage in ("all", name)]
    for name in stages:
        # Find out now that the last stage's data is missing, not after the first ones have been trained.
        if not (resume and _is_done(config, name)):
            find_sources(split_share(path)[0] for path in config.stage(name).data_paths)
    if dry_run:
        _describe(config, stages, log)
    else:
        for name in stages:
            _run_training_stage(config, name, resume=resume, log=log)
    inference = config.sections.get("inference", {})
    has_prompts = prompts or inference.get("prompt") or inference.get("input")
    if stage == "inference" and not has_prompts:
        raise TrainingError("--stage inference needs --prompt, or inference.prompt or inference.input in the file")
    if has_prompts and stage in ("all", "inference"):
        options = _inference_options(config, prompts)
        log(f"── inference with {options.model_name_or_path}")
        if not dry_run:
            run_generate(options, log=log)


def _require_possible(config: RunConfig, stage: str, prompts: Sequence[str]) -> None:
    if stage not in ("all", "inference", *TRAINING_STAGES):
        raise TrainingError(f"--stage is {stage!r}; it must be one of all, {', '.join(TRAINING_STAGES)}, inference")
    if stage in TRAINING_STAGES and stage not in config.sections:
        raise TrainingError(f"{config.file.name}: no section {stage!r}, which --stage {stage} needs")
    if stage in TRAINING_STAGES and prompts:
        raise TrainingError(f"--prompt is for --stage all and inference; --stage {stage} answers no prompts")
    if read_launch().world_size > 1 and stage not in MODEL_STAGES:
        raise TrainingError(
            f"under torchrun a pipeline runs one stage: --stage {' or '.join(MODEL_STAGES)}; training/train.sh does"
        )


def _is_done(config: RunConfig, stage: str) -> bool:
    is_adapter = stage != "tokenizer" and config.stage(stage).adapter_only
    return (config.folder(stage) / (_DONE_ADAPTER if is_adapter else _DONE_FILES[stage])).exists()


def _require_start(config: RunConfig, stage: str) -> None:
    if not config.can_start(stage):
        before = TRAINING_STAGES[TRAINING_STAGES.index(stage) - 1]
        raise TrainingError(
            f"--stage {stage} starts from {config.folder(before)}, which is not there; run --stage {before}, or all"
        )


def _describe(config: RunConfig, stages: Sequence[str], log: Callable[[str], None]) -> None:
    """Describe the stages. One that has not run leaves its model, without weights, in a scratch folder for the next."""
    with TemporaryDirectory() as scratch:
        sketch = config.within(Path(scratch))
        for stage in stages:
            log(f"── {stage} → {config.folder(stage)}")
            if stage == "tokenizer":
                run_tokenizer(sketch.stage(stage), log=lambda text: log(text.split(" in ")[0]), excerpt=EXCERPT)
            else:
                needs_sketch = not config.can_start(stage)
                if not sketch.can_start(stage):
                    _require_start(config, stage)
                start = describe_run((sketch if needs_sketch else config).stage(stage), log=log)
                start.model.save(sketch.folder(stage))


def _run_training_stage(config: RunConfig, stage: str, *, resume: bool, log: Callable[[str], None]) -> None:
    folder = config.folder(stage)
    options = config.stage(stage, {"resume": True} if resume and stage != "tokenizer" else None)
    if resume and _is_done(config, stage):
        if stage != "tokenizer":
            require_same_options(options)
        log(f"── {stage}: finished already, in {folder}; its data was not read again")
        return
    _require_start(config, stage)
    log(f"── {stage} → {folder}")
    if stage == "tokenizer":
        run_tokenizer(options, log=log)
    else:
        run_training(options)


def _inference_options(config: RunConfig, prompts: Sequence[str]) -> GenerateOptions:
    overrides: dict[str, object] = {"prompt": list(prompts)} if prompts else {}
    # A base model has not seen the chat template.
    is_base = [stage for stage in MODEL_STAGES if stage in config.sections] == ["pretraining"]
    if is_base and "is_instruct" not in config.sections.get("inference", {}):
        overrides["is_instruct"] = False
    options: GenerateOptions = config.stage("inference", overrides)
    return options
