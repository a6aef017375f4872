"""`llada-train`: tokenizer, pre-training and supervised fine-tuning on one process."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from llada_core.checkpoint import load_model, load_special_tokens, resolve_folder, save_checkpoint
from llada_core.config import LLaDAConfig
from llada_core.model import LLaDAModelLM
from llada_core.special_tokens import BOS_TOKEN, EOS_TOKEN, EOT_TOKEN, MASK_TOKEN, SpecialTokens
from llada_core.tokenizer import Tokenizer
from training.data.jsonl import DataError, read_dialogues, read_texts
from training.data.samples import pack_documents, tokenize_dialogues
from training.tokenizer import train_tokenizer
from training.trainer import Trainer, TrainingError, TrainingParams

app = typer.Typer(
    name="llada-train",
    help="Train LLaDA: a tokenizer, a base model, an instruct model.",
    no_args_is_help=True,
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
)

DEFAULT_THREADS = os.cpu_count() or 1

TrainDataPath = Annotated[list[Path], typer.Option(exists=True, dir_okay=False, help="JSONL file; may be repeated.")]
OutputDir = Annotated[Path, typer.Option(help="The finished model's folder, itself servable.")]
MaxLength = Annotated[int, typer.Option(min=8, help="Tokens of one sample.")]
MaxSteps = Annotated[int, typer.Option(min=1, help="Optimizer steps.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples of one optimizer step.")]
LearningRate = Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")]
WarmupSteps = Annotated[int, typer.Option(min=0, help="Steps of linear warm-up.")]
SaveSteps = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]
Seed = Annotated[int, typer.Option(help="Decides initial weights, data order and noise.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint in the output folder.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]


@app.command()
def tokenizer(
    train_data_path: TrainDataPath,
    output_dir: OutputDir,
    vocab_size: Annotated[int, typer.Option(min=300, help="Tokens, special ones included.")] = 4096,
) -> None:
    """Train a byte-level BPE tokenizer with LLaDA's special tokens on {"text"} and {"messages"} files."""
    trained = train_tokenizer(
        (text for path in train_data_path for text in _any_texts(path)), vocab_size=vocab_size, output_dir=output_dir
    )
    typer.echo(f"{trained.get_vocab_size()} tokens in {output_dir / 'tokenizer.json'}")


@app.command()
def pretrain(
    model_config: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="config.json, official names.")],
    tokenizer: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder with tokenizer.json.")],
    train_data_path: TrainDataPath,
    output_dir: OutputDir,
    max_steps: MaxSteps,
    max_length: MaxLength = 4096,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 4e-4,
    warmup_steps: WarmupSteps = 100,
    save_steps: SaveSteps = 500,
    seed: Seed = 0,
    threads: Threads = DEFAULT_THREADS,
    resume: Resume = False,
) -> None:
    """Pre-train a base model from scratch on packed documents ({"text"} lines)."""
    torch.set_num_threads(threads)
    params = TrainingParams(
        "pretrain", max_steps, batch_size, learning_rate, warmup_steps, seed=seed, save_steps=save_steps
    )
    encoder = Tokenizer.from_folder(tokenizer)
    special_tokens = _special_tokens_of(encoder)
    torch.manual_seed(seed)
    model = LLaDAModelLM(_config_for(model_config, encoder, special_tokens))
    texts = (text for path in train_data_path for text in read_texts(path))
    samples = pack_documents(texts, encoder, eos_id=special_tokens.eos_id, max_length=max_length)
    typer.echo(f"{len(samples):,} samples of {max_length} tokens; {model.num_parameters():,} parameters")
    trainer = Trainer(model, samples, params, special_tokens=special_tokens, output_dir=output_dir, log=typer.echo)
    _train_and_save(trainer, output_dir, tokenizer / "tokenizer.json", resume=resume)


@app.command()
def sft(
    model_name_or_path: Annotated[str, typer.Option(help="Folder of a pre-trained checkpoint, or a hub id.")],
    train_data_path: TrainDataPath,
    output_dir: OutputDir,
    max_steps: MaxSteps,
    max_length: MaxLength = 4096,
    batch_size: BatchSize = 32,
    learning_rate: LearningRate = 2.5e-5,
    warmup_steps: WarmupSteps = 50,
    save_steps: SaveSteps = 500,
    pad_to: Annotated[int | None, typer.Option(help="Pad one batch in three further, up to this many tokens.")] = None,
    seed: Seed = 0,
    threads: Threads = DEFAULT_THREADS,
    resume: Resume = False,
) -> None:
    """Fine-tune on dialogues ({"messages"} lines); every assistant turn is a target, the prompt is never masked."""
    torch.set_num_threads(threads)
    params = TrainingParams(
        "sft", max_steps, batch_size, learning_rate, warmup_steps, seed=seed, save_steps=save_steps, pad_to=pad_to
    )
    source = resolve_folder(model_name_or_path)
    model = load_model(source, dtype="float32").requires_grad_(True)
    encoder = Tokenizer.from_folder(source, vocab_size=model.config.vocab_size)
    special_tokens = load_special_tokens(source)
    dialogues = (dialogue for path in train_data_path for dialogue in read_dialogues(path))
    samples, too_long = tokenize_dialogues(dialogues, encoder, eos_id=special_tokens.eos_id, max_length=max_length)
    typer.echo(f"{len(samples):,} samples; {too_long:,} longer than {max_length} tokens left out")
    trainer = Trainer(model, samples, params, special_tokens=special_tokens, output_dir=output_dir, log=typer.echo)
    _train_and_save(trainer, output_dir, source / "tokenizer.json", resume=resume)


def main() -> None:
    """Run the command line; the user's errors end in one line, not a traceback."""
    try:
        app()
    except (DataError, TrainingError, ValueError, FileNotFoundError, FileExistsError) as error:
        typer.echo(f"llada-train: {error}", err=True)
        raise SystemExit(1) from None


def _train_and_save(trainer: Trainer, output_dir: Path, tokenizer_file: Path, *, resume: bool) -> None:
    if output_dir.exists() and any(output_dir.iterdir()) and not resume:
        raise FileExistsError(f"{output_dir} is not empty; give --resume to continue in it, or another --output-dir")
    if not trainer.samples:
        raise DataError("no training samples: the data is shorter than one sample of --max-length, or all of it longer")
    output_dir.mkdir(parents=True, exist_ok=True)
    if resume:
        typer.echo(f"continuing from step {trainer.step}" if trainer.resume() else "no checkpoint yet: from step 0")
    trainer.run()
    save_checkpoint(
        trainer.model,
        output_dir,
        tokenizer_file=tokenizer_file,
        special_tokens=trainer.special_tokens,
        dtype=torch.bfloat16,
    )
    typer.echo(f"saved to {output_dir}")


def _config_for(file: Path, encoder: Tokenizer, special_tokens: SpecialTokens) -> LLaDAConfig:
    fields: dict[str, Any] = json.loads(file.read_text())
    wanted = {
        "vocab_size": len(encoder),
        "embedding_size": len(encoder),
        "mask_token_id": special_tokens.mask_id,
        "eos_token_id": special_tokens.eos_id,
        "pad_token_id": special_tokens.eos_id,
    }
    for name, value in wanted.items():
        if fields.get(name) not in (None, value):
            typer.echo(f"{name}: {fields[name]} in {file.name}, {value} in the tokenizer; taking the tokenizer's")
    return LLaDAConfig.from_dict({**fields, **wanted})


def _special_tokens_of(encoder: Tokenizer) -> SpecialTokens:
    mask_id, eos_id, bos_id = (encoder.token_to_id(token) for token in (MASK_TOKEN, EOS_TOKEN, BOS_TOKEN))
    if mask_id is None or eos_id is None or bos_id is None:
        raise DataError(f"the tokenizer needs the tokens {BOS_TOKEN}, {EOS_TOKEN} and {MASK_TOKEN}")
    return SpecialTokens(mask_id, eos_id, encoder.token_to_id(EOT_TOKEN))


def _any_texts(path: Path) -> Any:
    with path.open(encoding="utf-8") as lines:
        first_line = lines.readline()
    if '"messages"' not in first_line:
        return read_texts(path)
    return (message.content for dialogue in read_dialogues(path) for message in dialogue)


if __name__ == "__main__":
    main()
