"""`llada-train`: tokenizer, pre-training, SFT, preferences, rewards, distillation, generation, evaluation, calibration,
export, a pipeline of them from one file, and a page of what was rewarded.
"""

from pathlib import Path
from typing import Annotated

import typer

from llada_core.threads import wait_passively
from training.errors import DataError, ElsewhereError, TrainingError
from training.launch import read_launch
from training.options.command_line import Command, command_for
from training.options.fields import (
    CalibrateOptions,
    DistillOptions,
    DPOOptions,
    EvalOptions,
    ExportOptions,
    GenerateOptions,
    GRPOOptions,
    PretrainOptions,
    SFTOptions,
    TokenizerOptions,
    TrainingOptions,
)
from training.options.file import RunConfig
from training.run.low_bit import quieten

# Each command is imported when it runs: `--help` should not wait for torch.

app = typer.Typer(
    name="llada-train",
    help="Train LLaDA: a tokenizer, a base model, an instruct model. Every option is also a key of --config.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
)


@app.command(cls=Command)
@command_for("tokenizer")
def tokenizer(options: TokenizerOptions) -> None:
    """Train a byte-level BPE tokenizer with LLaDA's special tokens, on data of any format."""
    from training.commands.tokenizer import run_tokenizer

    run_tokenizer(options, log=typer.echo)


@app.command(cls=Command)
@command_for("pretrain", can_dry_run=True)
def pretrain(options: PretrainOptions, *, dry_run: bool = False) -> None:
    """Pre-train a base model on packed documents ({"text"} records), from random weights or a checkpoint."""
    _train(options, dry_run=dry_run)


@app.command(cls=Command)
@command_for("sft", can_dry_run=True)
def sft(options: SFTOptions, *, dry_run: bool = False) -> None:
    """Fine-tune on dialogues: every assistant turn is a target, and the prompt is never masked."""
    _train(options, dry_run=dry_run)


@app.command(cls=Command)
@command_for("dpo", can_dry_run=True)
def dpo(options: DPOOptions, *, dry_run: bool = False) -> None:
    """Teach preferences: of two answers to a prompt, the model comes to prefer the chosen one (VRPO)."""
    _train(options, dry_run=dry_run)


@app.command(cls=Command)
@command_for("grpo", can_dry_run=True)
def grpo(options: GRPOOptions, *, dry_run: bool = False) -> None:
    """Learn from rewards: the model answers, and what is rewarded above its other answers becomes likelier (GRPO)."""
    _train(options, dry_run=dry_run)


@app.command(cls=Command)
@command_for("distill", can_dry_run=True)
def distill(options: DistillOptions, *, dry_run: bool = False) -> None:
    """Teach a model to be sure of its own answers sooner, so that a parallel rule needs fewer steps (dParallel)."""
    _train(options, dry_run=dry_run)


@app.command(cls=Command)
@command_for("generate")
def generate(options: GenerateOptions) -> None:
    """Answer prompts, or every line of a file; a file that was interrupted continues where it stopped."""
    from training.commands.generate import run_generate

    run_generate(options, log=typer.echo)


@app.command(name="eval", cls=Command)
@command_for("eval")
def evaluate(options: EvalOptions) -> None:
    """Bound the negative log-likelihood and the perplexity of data, or score decisions; every run gives the same."""
    from training.commands.decisions import run_decision_eval
    from training.commands.evaluate import run_eval

    run = run_decision_eval if options.decisions else run_eval
    run(options, log=typer.echo)


@app.command(cls=Command)
@command_for("calibrate")
def calibrate(options: CalibrateOptions) -> None:
    """Fit the temperature of decisions on labelled questions and write it into the checkpoint's folder."""
    from training.commands.decisions import run_calibrate

    run_calibrate(options, log=typer.echo)


@app.command(cls=Command)
@command_for("export")
def export(options: ExportOptions) -> None:
    """Write a checkpoint as a Hugging Face folder, with adapters merged."""
    from training.commands.export import run_export

    run_export(options, log=typer.echo)


@app.command()
def rollouts(
    output_dir: Annotated[Path, typer.Argument(help="The output folder of a `grpo` run; it may still be running.")],
    steps: Annotated[int, typer.Option(help="Steps shown, spread over the run.", min=1, max=1000)] = 20,
    prompts: Annotated[int, typer.Option(help="Prompts shown of each step.", min=1, max=1000)] = 8,
) -> None:
    """Write rollouts.html into a run's folder: the reward's curve, and answers with their rewards."""
    from training.commands.rollouts import write_page

    write_page(output_dir, num_steps=steps, num_prompts=prompts, log=typer.echo)


@app.command()
def tiny(
    architecture: Annotated[
        str, typer.Argument(help="The published class, such as DreamModel; docs/models.md has all.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Folder to write; must be empty or missing.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 0,
) -> None:
    """Write a miniature of an architecture with random weights, to serve or train on: it writes nonsense."""
    from training.commands.tiny import run_tiny

    run_tiny(architecture, output_dir, seed=seed, log=typer.echo)


@app.command()
def pipeline(
    config: Annotated[Path, typer.Option(help="YAML file with a section for every stage.")],
    stage: Annotated[
        str, typer.Option(help="all, tokenizer, pretraining, sft, dpo, grpo, distill or inference.")
    ] = "all",
    prompt: Annotated[list[str] | None, typer.Option(help="Prompt for inference; may be repeated.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip finished stages and continue a started one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the stages would do; write nothing.")] = False,
    list_stages: Annotated[
        bool, typer.Option("--list-stages", help="Print the training stages of the file; run nothing.")
    ] = False,
) -> None:
    """Run the stages of a config file, each on the output of the one before."""
    loaded = RunConfig.load(config)
    if list_stages:
        typer.echo("\n".join(loaded.stages))
        return
    launch = read_launch()
    if dry_run and not launch.is_main:
        return
    from training.commands.pipeline import run_pipeline

    def log(text: str) -> None:
        if launch.is_main:
            typer.echo(text)

    run_pipeline(loaded, stage, prompts=prompt or [], resume=resume, dry_run=dry_run, log=log)


def main() -> None:
    """Run the command line; an error that the user can fix is printed on one line, without a traceback."""
    wait_passively()
    quieten()
    try:
        app()
    except ElsewhereError:
        raise SystemExit(1) from None
    except (DataError, TrainingError, ValueError, OSError) as error:
        typer.echo(f"llada-train: {error}", err=True)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if error.name in ("datasets", "matplotlib", "peft", "pyarrow", "tensorboard"):
            typer.echo(f"llada-train: {error.name} is not installed: pip install 'llada[train]'", err=True)
            raise SystemExit(1) from None
        raise


def _train(options: TrainingOptions, *, dry_run: bool) -> None:
    if dry_run:
        if not read_launch().is_main:
            return
        from training.run.dry_run import describe_run

        describe_run(options, log=typer.echo)
        return
    from training.run.run import run_training

    run_training(options)


if __name__ == "__main__":
    main()
