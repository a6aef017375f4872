"""A pre-training or SFT run from its options to the finished, servable folder."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llada_core.model.backends.host_memory import keep_freed_memory
from training.data.batches import BatchPlanner
from training.data.samples import Dialogues, PackedDocuments, Samples
from training.data.shards import DialogueEncoder, DocumentEncoder, Encoder, Shard, tokenize
from training.data.sources import find_sources
from training.distributed import World, world
from training.errors import DataError, TrainingError
from training.files import require_writable
from training.options.fields import PretrainOptions, SFTOptions, TrainingOptions
from training.run.checkpoints import (
    Checkpoints,
    RunIdentity,
    differences,
    drop_incomplete,
    newest,
    read_state,
    require_room,
)
from training.run.export import export
from training.run.objective import Objective
from training.run.parallelize import parallelize
from training.run.report import Reporter
from training.run.start import Start, config_digest, find_start, num_parameters, weights_digest
from training.run.trainer import Trainer, memory_advice

# Options that may change when a run resumes: they say where and how fast it runs and what it shows, not what comes out.
_MAY_CHANGE = {
    "output_dir", "resume", "device", "threads", "strategy", "micro_batch_size", "activation_checkpointing",
    "save_steps", "keep_last", "log_steps", "eval_steps", "eval_prompt", "eval_gen_length",
}  # fmt: skip
# These are compared by what they come to: tokens, a number of steps, a config, weights. A folder may have moved.
_COMPARED_BY_CONTENT = {
    "model_name_or_path", "model_config_file", "tokenizer", "train_data_path", "val_data_path", "max_bad_lines",
    "num_epochs", "max_steps",
}  # fmt: skip


def run_training(options: TrainingOptions) -> None:
    """Train, or go on training, and write the finished model into the output folder.

    Raises:
        TrainingError, DataError: what the user can mend; the message says how.
    """
    torch.set_num_threads(options.threads or max(1, _num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    with world(options.device) as here:
        if here.device.type == "cpu":
            keep_freed_memory(all_of_it=True)
        reporter = Reporter(options.output_dir, is_main=here.is_main)
        start = find_start(options, log=reporter.say)
        here.from_main(lambda: _require_usable(options, start))
        samples, val_samples = load_samples(options, start, options.output_dir / "data", here, reporter)
        with memory_advice():
            trainer = build_trainer(options, start, samples, val_samples, here, reporter)
            if options.resume:
                is_found = trainer.resume()
                reporter.say(f"continuing from step {trainer.step}" if is_found else "no checkpoint yet: from step 0")
            trainer.train()
        here.from_main(lambda: _finish(options, reporter))


def require_same_options(options: TrainingOptions) -> None:
    """Of a finished run: its options and the model that it started from were those of now. Its data is not read.

    Raises:
        TrainingError: names the folder and what differs.
    """
    last = newest(options.output_dir / "checkpoints")
    if last is None:
        return
    then, now = read_state(last).run.decisive, _decisive(options)
    if options.max_steps is not None:
        now["max_steps"] = options.max_steps
    if options.model_name_or_path is not None and Path(options.model_name_or_path).is_dir():
        now["base model's weights"] = weights_digest(Path(options.model_name_or_path))
    differing = differences(then, {**then, **now})
    if differing:
        raise TrainingError(
            f"{options.output_dir} was finished from another start: {differing}. Choose another output_dir, or delete "
            "the folder to train again"
        )


def _num_cores() -> int:
    """Those that this process may use: a container or `taskset` may give it fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def max_steps_of(options: TrainingOptions, planner: BatchPlanner) -> int:
    """`--max-steps`, or as many as `--num-epochs` need."""
    if options.max_steps is not None:
        return options.max_steps
    assert options.num_epochs is not None
    return max(1, math.ceil(options.num_epochs * planner.steps_per_epoch))


def load_samples(
    options: TrainingOptions, start: Start, folder: Path, here: World, reporter: Reporter
) -> tuple[Samples, Samples | None]:
    """Tokenise what is not yet tokenised (on the main process) and map the shards; says what was found."""
    training = _load(options.train_data_path, options, start, folder, here, reporter)
    if not len(training):
        raise DataError("no training samples: the data is shorter than one sample of --max-length, or all of it longer")
    if not options.val_data_path:
        return training, None
    validation = _load(options.val_data_path, options, start, folder, here, reporter)
    if not len(validation):
        raise DataError("--val-data-path: no samples: the data is shorter than one sample of --max-length")
    return training, validation


def planner_of(options: TrainingOptions, start: Start, samples: Samples) -> BatchPlanner:
    is_sft = isinstance(options, SFTOptions)
    return BatchPlanner(
        samples,
        batch_size=options.batch_size,
        seed=options.seed,
        eos_id=start.special_tokens.eos_id,
        loss_norm=options.loss_norm,
        is_sft=is_sft,
        pad_to=options.pad_to if isinstance(options, SFTOptions) else None,
        group_by_length=options.group_by_length,
    )


def require_even_share(planner: BatchPlanner, options: TrainingOptions, here: World) -> None:
    """Of every batch, for every process.

    Raises:
        TrainingError: names both sizes.
    """
    if planner.batch_size % here.size:
        few = ", all that the data has" if planner.batch_size < options.batch_size else ""
        raise here.error(
            f"a batch has {planner.batch_size} samples{few}; it must be a multiple of the {here.size} processes"
        )


def _require_usable(options: TrainingOptions, start: Start) -> None:
    folder = options.output_dir
    require_writable(folder)
    if start.folder is not None and start.folder.resolve() == folder.resolve():
        raise TrainingError(f"--output-dir {folder}: is --model-name-or-path too, which would be written over")
    # Tokens of a run that failed before its first step are no reason to refuse.
    if any(entry.name != "data" for entry in folder.iterdir()) and not options.resume:
        raise TrainingError(f"{folder} is not empty; give --resume to continue in it, or another --output-dir")
    drop_incomplete(folder / "checkpoints")


def _load(
    paths: Sequence[str], options: TrainingOptions, start: Start, folder: Path, here: World, reporter: Reporter
) -> Samples:
    encoder = _encoder(options, start)

    def make_shards() -> list[Path]:
        with reporter.tokenizing() as on_progress:
            made = tokenize(
                find_sources(paths), encoder, folder, max_bad_lines=options.max_bad_lines, on_progress=on_progress
            )
        return [shard.folder for shard in made]

    # A file's path and time, which a shard is known by, may differ on another machine: the main process says which.
    shards = [Shard.open(shard) for shard in here.from_main(make_shards)]
    samples: Samples
    if isinstance(options, PretrainOptions):
        samples = PackedDocuments(
            shards, max_length=options.max_length, attend_across_documents=options.attend_across_documents
        )
    else:
        samples = Dialogues(shards)
    for shard in shards:
        reporter.say(_description(shard, options))
    return samples


def _encoder(options: TrainingOptions, start: Start) -> Encoder:
    eos_id = start.special_tokens.eos_id
    if isinstance(options, SFTOptions):
        return DialogueEncoder(start.tokenizer, eos_id=eos_id, max_length=options.max_length, overlong=options.overlong)
    return DocumentEncoder(start.tokenizer, eos_id=eos_id)


def _description(shard: Shard, options: TrainingOptions) -> str:
    text = f"{shard.name}: {shard.format} format, {len(shard.ends):,} samples, {len(shard.tokens):,} tokens"
    for count, done in ((shard.num_dropped, "left out"), (shard.num_truncated, "cut")):
        if count:
            text += f"; {count:,} longer than {options.max_length} tokens {done}"
    return f"{text}\n{shard.bad_lines}" if shard.bad_lines else text


def build_trainer(
    options: TrainingOptions,
    start: Start,
    samples: Samples,
    val_samples: Samples | None,
    here: World,
    reporter: Reporter,
) -> Trainer:
    planner = planner_of(options, start, samples)
    require_even_share(planner, options, here)
    if here.size == 1 and options.strategy == "fsdp":
        reporter.say("warning: --strategy fsdp shards over processes, and this is one alone; start it with torchrun")
    is_sharded = here.size > 1 and options.strategy == "fsdp"
    model = start.model(options, on_meta=is_sharded and not here.is_main)
    require_room(options.output_dir, model, num_kept=options.keep_last + bool(options.val_data_path))
    if not is_sharded:
        nn.Module.to(model, here.device)
    objective = Objective(model, mask_id=start.special_tokens.mask_id, seed=options.seed)
    module = parallelize(objective, here, options.strategy, bfloat16=options.dtype == "bfloat16")
    max_steps = max_steps_of(options, planner)
    total, trained = num_parameters(model)
    if options.warmup_steps > max_steps:
        reporter.say(f"warning: --warmup-steps ({options.warmup_steps}) is more than the run has steps ({max_steps})")
    reporter.say(
        f"{len(samples):,} samples, {planner.steps_per_epoch:,} steps an epoch; {max_steps:,} steps of "
        f"{planner.batch_size} samples; {total:,} parameters, {trained:,} of them trained; "
        f"{here.size} {'process' if here.size == 1 else 'processes'} on {here.device}"
    )
    return Trainer(
        module,
        model,
        planner,
        options,
        max_steps=max_steps,
        identity=_identity(options, start, samples, val_samples, max_steps),
        world=here,
        checkpoints=Checkpoints(options.output_dir / "checkpoints", keep_last=options.keep_last, world=here),
        reporter=reporter,
        tokenizer=start.tokenizer,
        tokenizer_file=start.tokenizer_file,
        val_samples=val_samples,
    )


def _identity(
    options: TrainingOptions, start: Start, samples: Samples, val_samples: Samples | None, max_steps: int
) -> RunIdentity:
    content = {
        "command": type(options).__name__,
        "max_steps": max_steps,
        "training data": samples.digest,
        # The best checkpoint is the best on these.
        "validation data": None if val_samples is None else val_samples.digest,
        "model config": config_digest(start.config),
        "tokenizer": start.tokenizer.fingerprint,
        "base model's weights": None if start.folder is None else weights_digest(start.folder),
    }
    return RunIdentity(
        {**_decisive(options), **content},
        special_tokens=asdict(start.special_tokens),
        base_model=None if start.folder is None else str(start.folder.resolve()),
        lora=None if start.lora is None else asdict(start.lora),
    )


def _decisive(options: TrainingOptions) -> dict[str, Any]:
    """The options that a resumed run must share, as JSON has them."""
    # How many samples are validated decides which checkpoint is the best.
    unused = set() if options.val_data_path else {"eval_samples"}
    found: dict[str, Any] = json.loads(options.model_dump_json(exclude=_MAY_CHANGE | _COMPARED_BY_CONTENT | unused))
    return found


def _finish(options: TrainingOptions, reporter: Reporter) -> None:
    """The last checkpoint becomes the Hugging Face folder that the output folder is."""
    checkpoints = options.output_dir / "checkpoints"
    last = newest(checkpoints)
    assert last is not None
    export(last, options.output_dir)
    reporter.draw_curve()
    best = Checkpoints.best_in(checkpoints)
    if best is not None:
        reporter.say(f"best validation NLL bound: {best[1]:.4f} in checkpoints/{best[0].name}")
    reporter.say(f"saved to {options.output_dir}; serve it with: llada-server --model {options.output_dir}")
