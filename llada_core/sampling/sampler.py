"""One denoising step for any set of canvases: the only one in the project.

`generate`, the server's engine and evaluation all call `Sampler.step`; they differ in the list they pass. A batch
exists for one step, so a request joins or leaves between two steps, whatever its length, step, block or settings.

Shape suffixes: T tokens of the packed batch, R rows at which a token is proposed, E model width, V columns of the head.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest

import numpy as np
import torch
from torch import Tensor

from llada_core.diffusion.guidance import guide, num_passes
from llada_core.errors import NonFiniteLogitsError
from llada_core.model.interface import MaskPredictor
from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.prefix_pool import PrefixPool
from llada_core.sampling.canvas import Canvas, Restoration, passes_of
from llada_core.sampling.constraints.candidates import TokenSet
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.params import EXACT
from llada_core.sampling.proposals import Proposals, copy_to_host, unpack
from llada_core.sampling.propose import Coordinates, Draft, Recipe, draft
from llada_core.sampling.shared_blocks import Filling, keep_blocks, may_reuse, reuse_blocks, without_repeats

# The most rows at the head at once, which bounds the memory of logits: half a gigabyte at LLaDA-8B's vocabulary.
MAX_HEAD_ROWS = 1024

# The most logits that a CPU drafts at once, unless one canvas has more: beyond that, each pass over them is a trip to
# main memory, which costs more than the calls that are saved.
_MAX_CPU_LOGITS = 1 << 19


@dataclass(frozen=True, slots=True)
class _Turn:
    """A canvas's part in one step.

    Attributes:
        step: the number of the step, on which its noise hangs.
        positions_R: the response positions at which a token is proposed.
        window: the positions that go through the model, counted from the canvas's first token; ascending.
        passes: the tokens of each forward pass: conditional, then under guidance unconditional.
        caches: one for each pass, or None.
    """

    canvas: Canvas
    step: int
    positions_R: np.ndarray
    window: np.ndarray
    passes: tuple[np.ndarray, ...]
    caches: tuple[KVCache, ...] | None

    @property
    def rows_R(self) -> np.ndarray:
        """The rows of the window at which a token is proposed."""
        return np.searchsorted(self.window, self.canvas.layout.prompt_length + self.positions_R)

    def sequences(self) -> Iterator[tuple[np.ndarray, KVCache | None]]:
        """The window's tokens in each pass, with the cache of the pass."""
        caches = self.caches or (None,) * len(self.passes)
        for tokens, cache in zip(self.passes, caches, strict=True):
            yield tokens[self.window], cache


def _turn_again(canvas: Canvas, restoration: Restoration, caches: tuple[KVCache, ...] | None) -> _Turn:
    """A canvas's part in an earlier step once more: for the caches and, if they are lost, for the guesses."""
    step, tokens, window, positions_R = restoration
    if not len(positions_R):
        # One row is asked for, of which nothing is read.
        positions_R = window[:1] - canvas.layout.prompt_length
    return _Turn(canvas, step, positions_R, window, passes_of(canvas, tokens), caches)


@dataclass(frozen=True, slots=True)
class _HeadRows:
    """Rows of one canvas that go through the head together: their positions, and hidden states [R, E] of each pass.

    Attributes:
        is_whole: these are all rows of the canvas's step.
    """

    canvas: Canvas
    step: int
    positions_R: np.ndarray
    hidden: tuple[Tensor, ...]
    is_whole: bool = False

    @property
    def num_rows(self) -> int:
        return len(self.positions_R) * len(self.hidden)

    def row(self, index: int) -> "_HeadRows":
        """One of the rows."""
        one = slice(index, index + 1)
        return _HeadRows(
            self.canvas, self.step, self.positions_R[one], tuple(hidden_RE[one] for hidden_RE in self.hidden)
        )


class Sampler:
    """A mask predictor and the step that drives it. Holds no state of any request, so threads may share it."""

    def __init__(self, model: MaskPredictor, prefix_pool: PrefixPool | None = None) -> None:
        """
        Args:
            prefix_pool: the model's; lets canvases under the cache policy `exact` share their finished blocks.
        """
        assert prefix_pool is None or prefix_pool.model is model
        self._model = model
        self._prefix_pool = prefix_pool

    @torch.inference_mode()
    def step(self, canvases: Sequence[Canvas]) -> list[DenoisingStep]:
        """Run the next step of every canvas. Either all of them advance or, on an error, none.

        Raises:
            NonFiniteLogitsError: the model returned NaN or infinity for a canvas.
        """
        fillings = self._fill_caches(canvases)
        turns = [self._turn(canvas) for canvas in canvases]
        selections = _Selections()
        # The step's only copy from device to host, but for canvases under a constraint.
        commits: list[tuple[Proposals, np.ndarray | None]] = []
        for turn, proposals in zip(turns, self._proposals(turns, selections), strict=True):
            if turn.canvas in selections.parts:
                commits.append(self._select_from_parts(turn, proposals, selections.parts[turn.canvas]))
            elif turn.canvas in selections.made:
                commits.append(selections.made[turn.canvas])
            else:
                commits.append((proposals, None))
        steps = []
        for turn, commit in zip(turns, commits, strict=True):
            turn.canvas.caches = turn.caches
            step = turn.canvas.commit(turn.positions_R, *commit)
            if turn.canvas.params.cache == EXACT:
                filling = fillings[turn.canvas]
                step = replace(
                    step,
                    cache_passes=filling.num_forwards * len(turn.passes),
                    queried_tokens=filling.queried,
                    reused_tokens=filling.reused,
                )
            steps.append(step)
        return steps

    @torch.inference_mode()
    def read(self, canvas: Canvas) -> tuple[np.ndarray, Proposals]:
        """Return the masks that the model sees, as response positions, and what it proposes there; change nothing.

        It is one forward pass over all that is visible, whatever the cache; the distributions are the proposals'
        alternatives, as many as the canvas reports.

        Args:
            canvas: has masks.

        Raises:
            NonFiniteLogitsError: the model returned NaN or infinity.
        """
        visible = np.arange(canvas.visible_length)
        response = canvas.tokens[visible][canvas.layout.response]
        positions_R = (response == canvas.layout.mask_id).nonzero()[0]
        turn = _Turn(canvas, canvas.step, positions_R, visible, passes_of(canvas, canvas.tokens), None)
        (proposals,) = self._proposals([turn])
        return positions_R, proposals

    def cache_bytes(self, canvas: Canvas) -> int:
        """Return the memory that the canvas's keys and values will take when it is at its longest."""
        if canvas.params.cache == "none":
            return 0
        one = KVCache.num_bytes(self._model.shape, len(canvas.tokens), self._model.dtype)
        return num_passes(canvas.params.cfg_scale) * one

    def _proposals(self, turns: Sequence[_Turn], selections: "_Selections | None" = None) -> list[Proposals]:
        """Run one forward pass over all windows, and propose a token at every row of each turn.

        Args:
            selections: takes what the canvases under a constraint commit.
        """
        parts: list[_HeadRows] = []
        packed: list[Tensor] = []
        for group in _groups(self._hidden_states(turns), MAX_HEAD_ROWS):
            for drafted, proposals in self._propose(group, selections):
                parts += drafted
                packed.append(proposals)
        on_host = copy_to_host(packed)
        _require_finite(on_host[1])
        columns: dict[Canvas, list[np.ndarray]] = defaultdict(list)
        stops = list(accumulate(len(part.positions_R) for part in parts))
        for part, rows in zip(parts, np.split(on_host, stops[:-1], axis=1), strict=True):
            columns[part.canvas].append(rows)
        return [
            unpack(np.concatenate(columns[turn.canvas], axis=1), turn.canvas.reporting.num_alternatives)
            for turn in turns
        ]

    def _turn(self, canvas: Canvas) -> _Turn:
        passes = passes_of(canvas, canvas.tokens)
        return _Turn(canvas, canvas.step, canvas.proposal_positions(), canvas.window, passes, self._caches(canvas))

    def _fill_caches(self, canvases: Sequence[Canvas]) -> dict[Canvas, Filling]:
        """Fill caches with what they lack: from the prefix pool as far as it has that, the rest by forward passes.

        Where several canvases lack the same block, the first computes it, and the others take it from the pool.
        """
        fillings = {canvas: Filling() for canvas in canvases}
        pool = self._prefix_pool
        sharing = set() if pool is None else {canvas for canvas in canvases if may_reuse(canvas)}
        waiting = canvases
        while waiting:
            for canvas in waiting:
                if pool is not None and canvas in sharing:
                    canvas.caches = self._caches(canvas)
                    fillings[canvas] = reuse_blocks(pool, canvas)
            restorations = {canvas: steps for canvas in waiting if (steps := canvas.restorations())}
            first = without_repeats(restorations, sharing)
            self._restore_caches(first)
            for canvas, steps in first.items():
                fillings[canvas].num_forwards = len(steps)
            waiting = [canvas for canvas in restorations if canvas not in first]
        return fillings

    def _restore_caches(self, restorations: Mapping[Canvas, Sequence[Restoration]]) -> None:
        """Fill caches with what they lack: that of released ones, by the forward passes that filled them, or finished
        blocks.

        Args:
            restorations: see `Canvas.restorations`.
        """
        caches = {canvas: self._caches(canvas) for canvas in restorations}
        for group in zip_longest(*restorations.values()):
            plain: list[_Turn] = []
            guessing: list[_Turn] = []
            for canvas, restoration in zip(restorations, group, strict=True):
                if restoration is not None:
                    turn = _turn_again(canvas, restoration, caches[canvas])
                    (guessing if len(restoration.lost) else plain).append(turn)
            if plain:
                self._forward(plain)
            for turn, proposals in zip(guessing, self._proposals(guessing) if guessing else (), strict=True):
                turn.canvas.remember_predictions(turn.positions_R, proposals)
        for canvas, passes in restorations.items():
            canvas.caches = filled = caches[canvas]
            if canvas.params.cache == EXACT and filled is not None:
                for cache in filled:
                    cache.filled = int(passes[-1].window[-1]) + 1
                if self._prefix_pool is not None:
                    keep_blocks(self._prefix_pool, canvas)

    def _caches(self, canvas: Canvas) -> tuple[KVCache, ...] | None:
        """Return the canvas's caches, or new ones that its next step, over the whole canvas, will fill.

        Under the policy `exact` there is room for all blocks from the start, which are filled one by one.
        """
        if canvas.params.cache == "none":
            return None
        length = len(canvas.tokens) if canvas.params.cache == EXACT else canvas.visible_length
        if canvas.caches is not None and canvas.caches[0].length == length:
            return canvas.caches
        # Free the old caches before allocating longer ones; holding both would exceed the reserved memory.
        canvas.caches = None
        return tuple(
            KVCache(self._model.shape, length, dtype=self._model.dtype, device=self._model.device)
            for _ in range(num_passes(canvas.params.cfg_scale))
        )

    def _forward(self, turns: Sequence[_Turn]) -> Iterator[Tensor]:
        """Run one forward pass over all windows; the hidden states [R, E] of each turn's passes, one after another."""
        sequences = [(turn, tokens, cache) for turn in turns for tokens, cache in turn.sequences()]
        is_block_causal = self._model.shape.block_length is not None
        block_lengths = tuple(turn.canvas.layout.block_length for turn, _, _ in sequences) if is_block_causal else None
        packed = PackedTokens(
            self._to_device(np.concatenate([tokens for _, tokens, _ in sequences])),
            tuple(len(tokens) for _, tokens, _ in sequences),
            tuple(turn.window for turn, _, _ in sequences),
            tuple(cache for _, _, cache in sequences),
            block_lengths,
        )
        rows = Rows.of(packed, [turn.rows_R for turn, _, _ in sequences])
        return iter(self._model.hidden_states(packed, rows).split(rows.counts))

    def _hidden_states(self, turns: Sequence[_Turn]) -> Iterator[_HeadRows]:
        """The hidden states of all windows at the requested rows, in parts of at most MAX_HEAD_ROWS."""
        hidden = self._forward(turns)
        for turn in turns:
            passes = [next(hidden) for _ in turn.passes]
            size = MAX_HEAD_ROWS // 2
            is_whole = len(turn.positions_R) <= size
            for start in range(0, len(turn.positions_R), size):
                part = slice(start, start + size)
                hidden_parts = tuple(hidden_RE[part] for hidden_RE in passes)
                yield _HeadRows(turn.canvas, turn.step, turn.positions_R[part], hidden_parts, is_whole)

    def _propose(
        self, group: Sequence[_HeadRows], selections: "_Selections | None"
    ) -> Iterator[tuple[list[_HeadRows], Tensor]]:
        """Send a group through the head at once; yield its parts, as far as they are alike, with their proposals.

        Args:
            selections: takes what the canvases under a constraint commit.
        """
        for parts, drafted in self._drafts(group):
            stops = accumulate(len(rows.positions_R) for rows in parts)
            for rows, stop in zip(parts, stops, strict=True):
                if selections is not None and rows.canvas.progress is not None:
                    selections.add(rows, drafted.rows(stop - len(rows.positions_R), stop))
            yield parts, drafted.packed
            # Free the logits before those of the next parts are copied.
            del drafted

    def _drafts(self, group: Sequence[_HeadRows]) -> Iterator[tuple[list[_HeadRows], Draft]]:
        """Send a group through the head at once; draft together what has the same recipe and guidance."""
        alike: dict[tuple[Recipe, float], list[_HeadRows]] = defaultdict(list)
        for rows in group:
            alike[Recipe.of(rows.canvas, rows.step), rows.canvas.params.cfg_scale].append(rows)
        most = MAX_HEAD_ROWS if self._model.device.type != "cpu" else _MAX_CPU_LOGITS // self._model.shape.vocab_size
        batches = [(key, parts) for key, rows in alike.items() for parts in _groups(rows, most)]
        # All conditional rows of a batch, then all unconditional ones.
        passes = [hidden for _, parts in batches for hidden in zip(*(rows.hidden for rows in parts), strict=True)]
        logits_RV = self._model.head(torch.cat([hidden_RE for hidden in passes for hidden_RE in hidden])).float()
        logits = iter(logits_RV.split([sum(map(len, hidden)) for hidden in passes]))
        shape = self._model.shape
        for (recipe, cfg_scale), parts in batches:
            logits_RV = next(logits)
            if cfg_scale:
                logits_RV = guide(logits_RV, next(logits), cfg_scale)
            places = [(rows.canvas, rows.step, rows.positions_R) for rows in parts]
            coordinates = Coordinates.of(places, self._model.device)
            scores_drawn = shape.sampler.scores_drawn
            yield (
                parts,
                draft(logits_RV, recipe, coordinates, vocab_size=shape.vocab_size, scores_drawn=scores_drawn),
            )

    def _select_from_parts(
        self, turn: _Turn, proposals: Proposals, parts: Sequence[_HeadRows]
    ) -> tuple[Proposals, np.ndarray]:
        """Choose for a canvas under a constraint whose logits were too many to keep: its parts go through the head
        again where something else is proposed.
        """

        def draft_of(part: _HeadRows) -> Draft:
            ((_, drafted),) = self._drafts([part])
            return drafted

        return turn.canvas.select_viable(turn.positions_R, proposals, _CandidatesInParts(parts, draft_of))

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._model.device, non_blocking=True)


class _Selections:
    """What canvases under a constraint commit. It is chosen while their logits exist.

    Attributes:
        made: the proposals and the rows to commit.
        parts: the rows of canvases whose logits were never there all at once; what they commit is chosen later.
    """

    def __init__(self) -> None:
        self.made: dict[Canvas, tuple[Proposals, np.ndarray]] = {}
        self.parts: dict[Canvas, list[_HeadRows]] = {}

    def add(self, rows: _HeadRows, drafted: Draft) -> None:
        """Choose for a canvas, or keep its rows."""
        if not rows.is_whole:
            self.parts.setdefault(rows.canvas, []).append(rows)
            return
        on_host = copy_to_host([drafted.packed])
        _require_finite(on_host[1])
        proposals = unpack(on_host, rows.canvas.reporting.num_alternatives)
        self.made[rows.canvas] = rows.canvas.select_viable(rows.positions_R, proposals, drafted)


class _CandidatesInParts:
    """The candidates of a canvas whose logits are never there all at once; see `constraints.candidates`."""

    def __init__(self, parts: Sequence[_HeadRows], draft_of: Callable[[_HeadRows], Draft]) -> None:
        """
        Args:
            draft_of: sends a part through the head.
        """
        self._parts = parts
        self._starts = [0, *accumulate(len(part.positions_R) for part in parts)]
        self._draft_of = draft_of
        self._held: tuple[range, Draft] | None = None

    def best(self, row: int, tokens: TokenSet) -> int:
        # Rows come in any order here, and few of them.
        drafted, index = self._draft_with(row, is_alone=True)
        return drafted.best(index, tokens)

    def confidence(self, row: int, token_id: int) -> float:
        drafted, index = self._draft_with(row)
        return drafted.confidence(index, token_id)

    def logits(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        drafted, index = self._draft_with(row)
        return drafted.logits(index)

    def _draft_with(self, row: int, *, is_alone: bool = False) -> tuple[Draft, int]:
        """Return a draft that has the row, and the row's place in it."""
        if self._held is None or row not in self._held[0]:
            self._held = None
            number = bisect_right(self._starts, row) - 1
            part, start, stop = self._parts[number], self._starts[number], self._starts[number + 1]
            if is_alone:
                part, start, stop = part.row(row - start), row, row + 1
            self._held = range(start, stop), self._draft_of(part)
        rows, drafted = self._held
        return drafted, row - rows.start


def _require_finite(confidence_R: np.ndarray) -> None:
    if not np.isfinite(confidence_R).all():
        raise NonFiniteLogitsError("the model's logits are not finite")


def _groups(parts: Iterable[_HeadRows], most: int) -> Iterator[list[_HeadRows]]:
    """Group adjacent parts, as many as fit into so many rows; a larger one is a group of its own."""
    group: list[_HeadRows] = []
    for rows in parts:
        if group and sum(member.num_rows for member in group) + rows.num_rows > most:
            yield group
            group = []
        group.append(rows)
    if group:
        yield group
