"""The `eval` command: the likelihood bound of a file."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from llada_core.checkpoint.load import Checkpoint
from llada_core.checkpoint.placement import Placement
from training.data.formats import detect_format
from training.data.shards import tokenize
from training.data.sources import Source, find_sources
from training.distributed import World
from training.errors import DataError
from training.evaluation.likelihood_bound import Evaluation, evaluate
from training.options.fields import EvalOptions
from training.run.report import progress_bar
from training.stages.pretrain import Pretraining
from training.stages.sft import SFT


def run_eval(options: EvalOptions, *, log: Callable[[str], None]) -> None:
    """Score dialogues by their answers, texts as packed documents, and print the bound.

    Raises:
        DataError: no data is named, no samples, samples longer than the model, or a checkpoint without a tokenizer.
    """
    if not options.val_data_path:
        raise DataError("eval: give either val_data_path or decisions")
    checkpoint = Checkpoint.open(options.model_name_or_path)
    if checkpoint.tokenizer is None:
        raise DataError(f"{options.model_name_or_path}: no tokenizer.json in this checkpoint")
    max_length = _max_length(options, checkpoint.config.shape.max_sequence_length)
    sources = find_sources(options.val_data_path, options.column_names)
    stage = _stage_for(sources, max_length, checkpoint.config.shape.block_length)
    encoder = stage.encoder(checkpoint.tokenizer, eos_id=checkpoint.special_tokens.eos_id)
    with TemporaryDirectory() as scratch:
        shards = tokenize(sources, encoder, Path(scratch), max_bad_lines=options.max_bad_lines)
        # At most the length of all the data, so that a short text still makes one sample.
        num_tokens = sum(len(shard.tokens) for shard in shards)
        samples = replace(stage, max_length=max(1, min(stage.max_length, num_tokens))).samples(shards)
        if not len(samples):
            raise DataError("no samples: all of the data is longer than --max-length, or there is none")
        model = checkpoint.load_network(Placement.of(options.device, "auto"))
        with progress_bar("evaluating", total=min(options.eval_samples, len(samples))) as advance:
            evaluation = evaluate(
                model,
                samples,
                num_samples=options.eval_samples,
                noise_levels=options.noise_levels,
                seed=options.seed,
                world=World(0, 1, model.device),
                on_progress=advance,
            )
    assert evaluation is not None
    if options.json_output:
        log(
            json.dumps(
                {**asdict(evaluation), "perplexity": evaluation.perplexity, "noise_levels": options.noise_levels}
            )
        )
    else:
        _print(evaluation, options.noise_levels, log)


def _max_length(options: EvalOptions, longest: int) -> int:
    max_length = options.max_length or longest
    if max_length > longest:
        raise DataError(f"--max-length is {max_length}; it must be at most the model's max_sequence_length, {longest}")
    return max_length


def _stage_for(sources: Sequence[Source], max_length: int, block_length: int | None) -> Pretraining | SFT:
    is_text = all(_format_of(source) == "text" for source in sources)
    kind = Pretraining if is_text else SFT
    return kind(max_length, block_length=block_length)


def _format_of(source: Source) -> str | None:
    """The format of the first record that can be read."""
    return next((detect_format(record.value) for record in source.records() if record.problem is None), None)


def _print(evaluation: Evaluation, noise_levels: int, log: Callable[[str], None]) -> None:
    log(f"NLL bound {evaluation} nats per token, perplexity {evaluation.perplexity:.5g}")
    log(f"{evaluation.num_samples:,} samples, {evaluation.num_tokens:,} tokens, {noise_levels} noise levels each")
    for level, value in evaluation.by_noise_level.items():
        log(f"  masked up to {level}: {value:.4f}")
