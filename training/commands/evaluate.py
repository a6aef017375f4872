"""The `eval` command: the likelihood bound of a file."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from llada_core.checkpoint.load import Checkpoint
from llada_core.checkpoint.placement import Placement
from training.data.formats import detect_format
from training.data.samples import Dialogues, PackedDocuments, Samples
from training.data.shards import DialogueEncoder, DocumentEncoder, Encoder, tokenize
from training.data.sources import Source, find_sources
from training.distributed import World
from training.errors import DataError
from training.evaluation.likelihood_bound import evaluate
from training.options.fields import EvalOptions
from training.run.report import progress_bar


def run_eval(options: EvalOptions, *, log: Callable[[str], None]) -> None:
    """The `eval` command: dialogues are scored by their answers, texts as packed documents."""
    checkpoint = Checkpoint.open(options.model_name_or_path)
    tokenizer, special_tokens = checkpoint.tokenizer, checkpoint.special_tokens
    if tokenizer is None:
        raise DataError(f"{options.model_name_or_path}: no tokenizer.json in this checkpoint")
    longest = checkpoint.config.max_sequence_length
    max_length = options.max_length or longest
    if max_length > longest:
        raise DataError(f"--max-length is {max_length}; it must be at most the model's max_sequence_length, {longest}")
    sources = find_sources(options.val_data_path)
    encoder: Encoder
    if all(_format_of(source) == "text" for source in sources):
        encoder = DocumentEncoder(tokenizer, eos_id=special_tokens.eos_id)
    else:
        encoder = DialogueEncoder(tokenizer, eos_id=special_tokens.eos_id, max_length=max_length, overlong="drop")
    with TemporaryDirectory() as scratch:
        shards = tokenize(sources, encoder, Path(scratch), max_bad_lines=options.max_bad_lines)
        num_tokens = sum(len(shard.tokens) for shard in shards)
        samples: Samples
        if isinstance(encoder, DocumentEncoder) and num_tokens:
            samples = PackedDocuments(shards, max_length=min(max_length, num_tokens))
        else:
            samples = Dialogues(shards)
        if not len(samples):
            raise DataError("no samples: all of the data is longer than --max-length, or there is none")
        model = checkpoint.load_network(Placement.of(options.device, "auto"))
        with progress_bar("evaluating", total=min(options.eval_samples, len(samples))) as advance:
            found = evaluate(
                model,
                samples,
                num_samples=options.eval_samples,
                noise_levels=options.noise_levels,
                seed=options.seed,
                here=World(0, 1, model.device),
                on_progress=advance,
            )
    assert found is not None
    log(f"NLL bound {found.nll:.6f} nats per token, perplexity {found.perplexity:.4f}")
    log(f"{found.num_samples:,} samples, {found.num_tokens:,} tokens, {options.noise_levels} noise levels each")
    for level, value in found.by_noise_level.items():
        log(f"  masked up to {level}: {value:.4f}")


def _format_of(source: Source) -> str | None:
    """The format of the first record that can be read."""
    return next((detect_format(record.value) for record in source.records() if record.problem is None), None)
