"""A training run, from its options to the finished folder that can be served."""

from functools import partial

import torch
from torch import nn

from llada_core.model.backends.host_memory import keep_freed_memory
from llada_core.threads import num_cores
from training.distributed import World, join_world
from training.launch import read_launch
from training.options.fields import TrainingOptions
from training.run.checkpoints import Checkpoints
from training.run.export import export
from training.run.identity import identity_of
from training.run.lock import OutputLock
from training.run.memory import count_parameters
from training.run.out_of_memory import memory_advice
from training.run.output_folder import prepare_output_folder, require_room
from training.run.parallelize import ParallelModel, parallelize
from training.run.plan import RunPlan, plan_run
from training.run.reference import frozen_copy
from training.run.report import Reporter
from training.run.run_file import write_run_file
from training.run.samples import RunSamples, load_samples
from training.run.start import Start, find_start
from training.run.state import best_checkpoint, newest_checkpoint
from training.run.stream import Stream
from training.run.trainer import Trainer
from training.run.validation import Validation
from training.stages.practice import Workplace


def run_training(options: TrainingOptions) -> None:
    """Train, or continue to train, and write the finished model into the output folder.

    Raises:
        TrainingError, DataError: a problem that the user can fix; the message says how.
    """
    torch.set_num_threads(options.threads or max(1, num_cores() // read_launch().local_world_size))
    with join_world(options.device) as world:
        if world.device.type == "cpu":
            keep_freed_memory(all_of_it=True)
        reporter = Reporter(options.output_dir, is_main=world.is_main, wandb_project=options.wandb_project)
        start = find_start(options, log=reporter.say)
        lock = OutputLock(options.output_dir)
        try:
            world.from_main(lambda: prepare_output_folder(start, lock))
            samples = load_samples(start, options.data_dir, world, reporter)
            with memory_advice():
                trainer = build_trainer(start, samples, world, reporter)
                if options.continues:
                    is_resumed = trainer.resume()
                    step = f"continuing from step {trainer.step}"
                    reporter.say(step if is_resumed else "no checkpoint yet: from step 0")
                world.from_main(lambda: write_run_file(start, samples, world, max_steps=trainer.max_steps))
                trainer.train()
            world.from_main(lambda: _finish(start, reporter))
        finally:
            lock.release()


def build_trainer(start: Start, samples: RunSamples, world: World, reporter: Reporter) -> Trainer:
    """Plan the steps, build the model and spread it over the processes, and report the size of the run."""
    options = start.options
    plan = plan_run(start, samples.training, world)
    if world.size == 1 and options.strategy == "fsdp":
        reporter.say("warning: --strategy fsdp shards over processes, and this is the only one; start it with torchrun")
    parallel = _build_model(start, world)
    warmup_steps = plan.schedule.warmup_steps
    if warmup_steps > plan.max_steps:
        reporter.say(f"warning: --warmup-steps ({warmup_steps}) is more than the run has steps ({plan.max_steps})")
    reporter.say(_summary(start, samples, plan, world))
    checkpoints = Checkpoints(
        options.output_dir / "checkpoints",
        keep_last=options.keep_last,
        resume_from=options.resume_from,
        run=identity_of(start, samples, plan.schedule),
        copy_files=start.model.copy_files,
        world=world,
    )
    workplace = Workplace(world, start.model.tokenizer, options.output_dir, options.seed)
    return Trainer(
        parallel,
        plan,
        options,
        checkpoints=checkpoints,
        validation=Validation(start, samples.validation, reporter),
        practice=start.stage.practice(parallel.unwrapped, workplace),
        reporter=reporter,
        watched=start.stage.watched,
    )


def _build_model(start: Start, world: World) -> ParallelModel:
    options = start.options
    is_sharded = world.size > 1 and options.strategy == "fsdp"
    model = start.build_model(device=world.device, on_meta=is_sharded and not world.is_main)
    require_room(start)
    if not is_sharded:
        nn.Module.to(model, world.device)
    reference = partial(frozen_copy, model, is_sharded=is_sharded)
    objective = start.stage.objective(model, seed=options.seed, reference=reference)
    return parallelize(objective, model, world, options.strategy, bfloat16=options.dtype == "bfloat16")


def _summary(start: Start, samples: RunSamples, plan: RunPlan, world: World) -> str:
    planner, training = plan.planner, samples.training
    size = "a stream of samples"
    if not isinstance(training, Stream):
        steps = max(1, len(training) // planner.batch_size) * planner.repeats
        size = f"{len(training):,} samples, {steps:,} steps an epoch"
    total, trained = count_parameters(start.model.config, start.lora)
    return (
        f"{size}; {plan.max_steps:,} steps of {planner.batch_size} samples; "
        f"{total:,} parameters, {trained:,} of them trained; "
        f"{world.size} {'process' if world.size == 1 else 'processes'} on {world.device}"
    )


def _finish(start: Start, reporter: Reporter) -> None:
    """Export the last checkpoint or, with early stopping, the best: the output folder becomes a Hugging Face folder."""
    options = start.options
    checkpoints = options.output_dir / "checkpoints"
    best, chosen = best_checkpoint(checkpoints), newest_checkpoint(checkpoints)
    if best is not None:
        reporter.say(f"best validation loss: {best[1]:.4f} in checkpoints/{best[0].name}")
        chosen = best[0] if options.early_stopping is not None else chosen
    assert chosen is not None
    export(chosen, options.output_dir, adapter_only=options.adapter_only)
    reporter.draw_curves(val_loss=start.stage.val_loss, watched=start.stage.watched)
    model = str(options.output_dir)
    if options.adapter_only:
        model = f"{options.model_name_or_path} --adapter {options.output_dir / 'adapter'}"
    reporter.say(f"saved to {options.output_dir}; serve it with: llada-server --model {model}")
