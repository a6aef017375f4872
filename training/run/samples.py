"""The samples of a run: tokenised by the main process, mapped by all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.order import whole_shares
from training.data.samples import Mixture, Samples, hold_out
from training.data.shards import Shard, tokenize
from training.data.sources import find_sources, split_share
from training.distributed import World
from training.errors import DataError
from training.run.report import Reporter
from training.run.start import Start


@dataclass(frozen=True, slots=True)
class RunSamples:
    """`validation`: None for a run without validation data."""

    training: Samples
    validation: Samples | None


def load_samples(start: Start, folder: Path, world: World, reporter: Reporter) -> RunSamples:
    """Tokenise the sources that `folder` lacks, map all shards, and report what they hold.

    Raises:
        DataError: no samples, or data that cannot be read.
    """
    training = _load(start, start.options.train_data_path, folder, world, reporter)
    if not len(training):
        raise DataError("no training samples: the data is shorter than one sample of --max-length, or all of it longer")
    if start.options.val_size is not None:
        return RunSamples(*hold_out(training, start.options.val_size, seed=start.options.seed))
    if not start.options.val_data_path:
        return RunSamples(training, None)
    validation = _read(start, start.options.val_data_path, folder, world, reporter)
    if not len(validation):
        raise DataError("--val-data-path: no samples: the data is shorter than one sample of --max-length")
    return RunSamples(training, validation)


def _load(start: Start, paths: Sequence[str], folder: Path, world: World, reporter: Reporter) -> Samples:
    parts = [split_share(path) for path in paths]
    shares = [share for _, share in parts if share is not None]
    if not shares:
        return _read(start, paths, folder, world, reporter)
    if len(shares) < len(parts):
        raise DataError(
            f"{', '.join(path for path, share in parts if share is None)}: give every path a share, or none"
        )
    if start.options.group_by_length:
        raise DataError("--group-by-length: batches in which every path has its share cannot be sorted by length too")
    samples = []
    for path, _ in parts:
        samples.append(_read(start, [path], folder, world, reporter))
        if not len(samples[-1]):
            raise DataError(f"{path}: no samples, and it should have a share of every batch")
    return Mixture(samples, whole_shares(shares))


def _read(start: Start, paths: Sequence[str], folder: Path, world: World, reporter: Reporter) -> Samples:
    options = start.options
    encoder = start.stage.encoder(start.model.tokenizer, eos_id=start.model.special_tokens.eos_id)

    def make_shards() -> list[Path]:
        with reporter.tokenizing() as on_progress:
            shards = tokenize(
                find_sources(paths, options.column_names),
                encoder,
                folder,
                max_bad_lines=options.max_bad_lines,
                on_progress=on_progress,
            )
        return [shard.folder for shard in shards]

    # The main process names the shards: a file's path and time, which identify one, may differ on another machine.
    shards = [Shard.open(shard) for shard in world.from_main(make_shards)]
    for shard in shards:
        reporter.say(_description(shard, start.stage.row_lengths["max_length"]))
    return start.stage.samples(shards)


def _description(shard: Shard, max_length: int) -> str:
    notes = shard.notes
    if not notes.format and not notes.num_bad:
        return f"{notes.name}: is empty"
    text = f"{notes.name}: {notes.format} format, {len(shard.ends):,} samples, {len(shard.tokens):,} tokens"
    for count, treatment in ((notes.num_dropped, "left out"), (notes.num_truncated, "cut")):
        if count:
            text += f"; {count:,} longer than {max_length} tokens {treatment}"
    if notes.num_without_target:
        text += f"; {notes.num_without_target:,} without a turn to train left out"
    if notes.left_out:
        text += f"\n{notes.name}: not trained: " + ", ".join(f"{key} ({n:,})" for key, n in notes.left_out.items())
    return f"{text}\n{notes.bad_lines}" if notes.bad_lines else text
