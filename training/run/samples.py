"""The samples of a run: tokenised by the main process, mapped by all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.order import whole_shares
from training.data.samples import Mixture, Samples, hold_out
from training.data.shards import Encoder, Shard, tokenize
from training.data.sources import excerpts, find_sources, split_share
from training.distributed import World
from training.errors import DataError
from training.run.report import Reporter
from training.run.start import Start
from training.run.stream import Stream


@dataclass(frozen=True, slots=True)
class RunSamples:
    """The samples of a run.

    Attributes:
        training: a stream is not read until a step needs it.
        validation: None for a run without validation data.
    """

    training: Samples | Stream
    validation: Samples | None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The samples in the beginning of the training data.

    Attributes:
        share: their share of all, by an estimate; None if nobody can tell.
    """

    samples: Samples
    share: float | None

    @property
    def num_samples(self) -> int | None:
        """The number of samples in all of the data."""
        return None if self.share is None else round(len(self.samples) / self.share)


def load_samples(start: Start, folder: Path, world: World, reporter: Reporter) -> RunSamples:
    """Tokenise the sources that `folder` lacks, map all shards, and report what they hold.

    Raises:
        DataError: no samples, or data that cannot be read.
    """
    loader = _Loader(start, folder, world, reporter)
    if start.options.streaming:
        return RunSamples(loader.stream(start.options.train_data_path), loader.validation())
    training, held_out = loader.training()
    return RunSamples(training, held_out or loader.validation())


def load_excerpt(start: Start, folder: Path, world: World, reporter: Reporter, *, num_characters: int) -> Excerpt:
    """Tokenise about so many characters of each list of sources.

    Raises:
        DataError: no samples in them, or data that cannot be read.
    """
    loader = _Loader(start, folder, world, reporter, excerpt=num_characters)
    samples, _ = loader.training()
    share = loader.share
    loader.validation()
    return Excerpt(samples, share)


class _Loader:
    def __init__(
        self, start: Start, folder: Path, world: World, reporter: Reporter, *, excerpt: int | None = None
    ) -> None:
        self._start = start
        self._options = start.options
        self._folder = folder
        self._world = world
        self._reporter = reporter
        self._excerpt = excerpt
        self._shards: list[Shard] = []

    @property
    def share(self) -> float | None:
        """The share of the samples that were read until now."""
        counts = [(len(shard.ends), shard.notes.share) for shard in self._shards if len(shard.ends)]
        if any(share is None for _, share in counts):
            return None
        return sum(count for count, _ in counts) / max(1, sum(count / (share or 1.0) for count, share in counts))

    def training(self) -> tuple[Samples, Samples | None]:
        """The samples of `--train-data-path`, and those that `--val-size` holds out of them."""
        options = self._options
        samples = self._load(options.train_data_path)
        if not len(samples):
            raise DataError(
                "no training samples: the data is shorter than one sample of --max-length, or all of it longer"
            )
        return (samples, None) if options.val_size is None else hold_out(samples, options.val_size, seed=options.seed)

    def validation(self) -> Samples | None:
        """The samples of `--val-data-path`, if it is given."""
        if not self._options.val_data_path:
            return None
        samples = self._read(self._options.val_data_path)
        if not len(samples):
            raise DataError("--val-data-path: no samples: the data is shorter than one sample of --max-length")
        return samples

    def stream(self, paths: Sequence[str]) -> Stream:
        """The samples of all paths, tokenised when they are needed."""
        for path in paths:
            if split_share(path)[1] is not None:
                raise DataError(f"{path}: a stream is read in order; leave out the share, or --streaming")
        return Stream(
            find_sources(paths, self._options.column_names),
            self._encoder(),
            # Not in a folder that runs share: a part is deleted when it has been trained.
            self._options.output_dir / "data" / "stream",
            to_samples=self._start.stage.samples,
            max_bad_lines=self._options.max_bad_lines,
            world=self._world,
            say=self._reporter.say,
        )

    def _load(self, paths: Sequence[str]) -> Samples:
        """The samples of all paths, each with its share of every batch if they have shares."""
        parts = [split_share(path) for path in paths]
        shares = [share for _, share in parts if share is not None]
        if not shares:
            return self._read(paths)
        if len(shares) < len(parts):
            raise DataError(
                f"{', '.join(path for path, share in parts if share is None)}: give every path a share, or none"
            )
        if self._options.group_by_length:
            raise DataError(
                "--group-by-length: batches in which every path has its share cannot be sorted by length too"
            )
        samples = []
        for path, _ in parts:
            samples.append(self._read([path]))
            if not len(samples[-1]):
                raise DataError(f"{path}: no samples, and it should have a share of every batch")
        return Mixture(samples, whole_shares(shares))

    def _read(self, paths: Sequence[str]) -> Samples:
        """The samples of all paths, one after the other."""
        stage = self._start.stage
        # The main process names the shards: a file's path and time, which identify one, may differ on another machine.
        shards = [Shard.open(shard) for shard in self._world.from_main(lambda: self._make_shards(paths))]
        for shard in shards:
            self._reporter.say(_description(shard, stage.row_lengths["max_length"]))
        self._shards += shards
        return stage.samples(shards)

    def _make_shards(self, paths: Sequence[str]) -> list[Path]:
        sources = find_sources(paths, self._options.column_names)
        if self._excerpt is not None:
            sources = excerpts(sources, self._excerpt)
        with self._reporter.tokenizing() as on_progress:
            shards = tokenize(
                sources,
                self._encoder(),
                self._folder,
                max_bad_lines=self._options.max_bad_lines,
                on_progress=on_progress,
            )
        return [shard.folder for shard in shards]

    def _encoder(self) -> Encoder:
        model = self._start.model
        return self._start.stage.encoder(model.tokenizer, eos_id=model.special_tokens.eos_id)


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
    if notes.share is None:
        text += "; its first records only"
    elif notes.share < 1:
        text += f"; its first {notes.share:.2%} only"
    return f"{text}\n{notes.bad_lines}" if notes.bad_lines else text
