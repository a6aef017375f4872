"""Training data that is tokenised while the run goes on, a part at a time: for corpora that do not fit on the disk.

Parts follow one another as their sources do; within a part the order is random. Which samples a step has is still a
function of seed and step: the sizes of the parts are noted in `stream.json`, so a run that resumes finds its part,
reads over the records before it, and tokenises no other again.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from llada_core.files import new_file, remove_folder
from training.data.batches import Batch, BatchPlanner, StepPlan
from training.data.parts import marks_of, parts_of
from training.data.samples import Samples
from training.data.shards import Encoder, Shard, tokenize
from training.data.sources import Source
from training.distributed import World
from training.errors import DataError
from training.integrity import DamagedError, read_sealed, write_sealed

# Of a part, in characters: some ten million tokens, which lie on the disk, and in memory while they are tokenised.
PART = 32_000_000
_NOTES = "stream.json"
# Any odd number with bits all over: every part has an order and noise of its own.
_SEED_STEP = 0x9E3779B97F4A7C15


class Stream:
    """The parts of sources, numbered over all passes.

    Attributes:
        digest: recognises the sources; the same in another place.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        encoder: Encoder,
        folder: Path,
        *,
        to_samples: Callable[[Sequence[Shard]], Samples],
        max_bad_lines: int,
        world: World,
        say: Callable[[str], None],
    ) -> None:
        self._sources = sources
        self._encoder = encoder
        self._folder = folder
        self._to_samples = to_samples
        self._max_bad_lines = max_bad_lines
        self._world = world
        self._say = say
        self.digest = world.from_main(lambda: f"streamed {marks_of(sources)} {encoder.identity}")
        # Known to the main process: samples and bad lines of each part of a pass, and whether these are all.
        self._sizes: list[int] = []
        self._bad: list[int] = []
        self._is_whole = False
        self._reader = parts_of(sources, PART)
        self._position = 0
        # The part on the disk, and its shards.
        self._made: tuple[int, list[Path]] = (-1, [])
        if world.is_main:
            self._read_notes()

    def size(self, number: int) -> int:
        """The number of samples in a part; a part that was never seen is tokenised."""
        return self._world.from_main(lambda: self._size(number))

    def passes_before(self, number: int) -> int:
        """How often all of the data comes before a part."""
        return self._world.from_main(lambda: number // len(self._sizes) if self._is_whole else 0)

    def samples(self, number: int) -> Samples:
        """The samples of a part; those of other parts are deleted from the disk."""
        return self._to_samples([Shard.open(folder) for folder in self._world.from_main(lambda: self._make(number))])

    def _size(self, number: int) -> int:
        if self._is_whole:
            return self._sizes[number % len(self._sizes)]
        if number >= len(self._sizes):
            self._make(number)
            return self._size(number)
        return self._sizes[number]

    def _make(self, number: int) -> list[Path]:
        """Tokenise a part on the main process."""
        if self._is_whole:
            number %= len(self._sizes)
        if number == self._made[0]:
            return self._made[1]
        sources = self._read(number)
        if sources is None:
            if not self._sizes:
                raise DataError("no training samples: the data has no records")
            self._is_whole = True
            self._write_notes()
            return self._make(number)
        folder = self._folder / f"part-{number}"
        shards = tokenize(sources, self._encoder, folder, max_bad_lines=self._max_bad_lines - sum(self._bad[:number]))
        for other in self._folder.glob("part-*"):
            if other != folder:
                remove_folder(other)
        if number == len(self._sizes):
            self._sizes.append(len(self._to_samples(shards)))
            self._bad.append(sum(shard.notes.num_bad for shard in shards))
            self._write_notes()
        tokens = sum(len(shard.tokens) for shard in shards)
        self._say(f"part {number + 1} of the data: {self._sizes[number]:,} samples, {tokens:,} tokens")
        self._made = number, [shard.folder for shard in shards]
        return self._made[1]

    def _read(self, number: int) -> list[Source] | None:
        """The records of a part, None after the last one; reads on from where it is, or from the beginning."""
        if self._position > number:
            self._reader, self._position = parts_of(self._sources, PART), 0
        for part in self._reader:
            self._position += 1
            if self._position > number:
                return part
        self._reader, self._position = parts_of(self._sources, PART), 0
        return None

    def _read_notes(self) -> None:
        with suppress(DamagedError):
            notes = read_sealed(self._folder / _NOTES)
            if (notes["digest"], notes["part"]) == (self.digest, PART):
                self._sizes, self._bad, self._is_whole = notes["sizes"], notes["bad"], notes["is_whole"]

    def _write_notes(self) -> None:
        notes = {"digest": self.digest, "part": PART, "sizes": self._sizes, "bad": self._bad}
        with new_file(self._folder / _NOTES) as aside:
            write_sealed(aside, {**notes, "is_whole": self._is_whole})


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    first_step: int
    first_sample: int
    num_samples: int


class StreamPlanner:
    """Plans the steps over a stream: all of a part's batches, then the next part's.

    Args:
        plan_part: the planner of a part's samples, given the part's seed.

    Attributes:
        batch_size: samples of a step; what does not fill one at the end of a part is left out.
        repeats: steps in a row that have the same samples.
    """

    def __init__(
        self,
        stream: Stream,
        plan_part: Callable[[Samples, int], BatchPlanner],
        *,
        batch_size: int,
        seed: int,
        repeats: int = 1,
    ) -> None:
        self._stream = stream
        self._plan_part = plan_part
        self._seed = seed
        self.batch_size = batch_size
        self.repeats = repeats
        self._part: _Part | None = None
        self._planner: BatchPlanner | None = None

    def plan(self, step: int) -> StepPlan:
        """Plan the optimizer step `step`, counted from 0; every process must call it."""
        part = self._find(step)
        if self._planner is None or part != self._part:
            seed = (self._seed + part.number * _SEED_STEP) % 2**63
            self._part, self._planner = part, self._plan_part(self._stream.samples(part.number), seed)
        plan = self._planner.plan(step - part.first_step)
        # A sample's index is its identity, which decides its noise.
        return replace(plan, samples_B=plan.samples_B + part.first_sample)

    def collate(self, plan: StepPlan, part: slice) -> Batch:
        """Read the tokens of some rows of the step that was planned last."""
        assert self._part is not None and self._planner is not None
        first = self._part.first_sample
        batch = self._planner.collate(replace(plan, samples_B=plan.samples_B - first), part)
        return replace(batch, samples_B=batch.samples_B + first)

    def _find(self, step: int) -> _Part:
        part = self._part
        if part is None or step < part.first_step:
            part = _Part(0, 0, 0, self._stream.size(0))
        while step >= (next_step := part.first_step + part.num_samples // self.batch_size * self.repeats):
            if not next_step and self._stream.passes_before(part.number + 1):
                raise DataError(f"no part of the data has the {self.batch_size} samples of a batch")
            number = part.number + 1
            part = _Part(number, next_step, part.first_sample + part.num_samples, self._stream.size(number))
        return part
