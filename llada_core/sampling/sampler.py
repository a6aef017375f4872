"""One denoising step for any set of canvases: the only one in the project.

`generate`, the server's engine and evaluation all call `Sampler.step`; they differ in the list they pass. A batch
exists for one step, so a request joins or leaves between two steps, whatever its length, step, block or settings.

Shape suffixes: T tokens of the packed batch, R rows at which a token is proposed, E model width, V columns of the head.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.diffusion.guidance import guide
from llada_core.errors import NonFiniteLogitsError
from llada_core.model.interface import MaskPredictor
from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.proposal import propose

# Rows that meet the head at once. It bounds the logits in memory: half a gigabyte at LLaDA-8B's vocabulary.
MAX_HEAD_ROWS = 1024


@dataclass(frozen=True, slots=True)
class _Pass:
    """One sequence of a step's forward: a canvas, or its unconditional twin.

    Attributes:
        tokens: ids of the window.
        start: where in the sequence the window begins.
        rows: which of the window's rows are wanted.
    """

    tokens: np.ndarray
    start: int
    rows: np.ndarray
    cache: KVCache | None


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of one canvas that go through the head together: positions, and the hidden states of both passes [R, E]."""

    canvas: Canvas
    positions: np.ndarray
    conditional_RE: Tensor
    unconditional_RE: Tensor | None

    @property
    def num_rows(self) -> int:
        return len(self.positions) * self.canvas.passes_per_step


class Sampler:
    """A mask predictor and the step that drives it. Holds no state of any request, so threads may share it."""

    def __init__(self, model: MaskPredictor) -> None:
        self._model = model

    @torch.inference_mode()
    def step(self, canvases: Sequence[Canvas]) -> list[DenoisingStep]:
        """Run the next step of every canvas. Either all of them advance or, on an error, none.

        Raises:
            NonFiniteLogitsError: the model returned NaN for a canvas.
        """
        positions = [canvas.proposal_positions() for canvas in canvases]
        caches = [self._caches(canvas) for canvas in canvases]
        hidden_rows = self._hidden_rows(canvases, positions, caches)
        proposals = [proposal for group in _groups(hidden_rows) for proposal in self._propose(group)]
        # The one copy from device to host of a step.
        on_host = torch.cat(_of_one_height(proposals), dim=1).cpu().numpy()
        if not np.isfinite(on_host[1]).all():
            raise NonFiniteLogitsError("the model's logits are not finite")
        per_canvas = np.split(on_host, np.cumsum([len(own) for own in positions])[:-1], axis=1)
        steps = []
        for canvas, own, filled, proposal in zip(canvases, positions, caches, per_canvas, strict=True):
            token_ids, confidence, scores, entropies = proposal[:4]
            alternatives = proposal[4 : 4 + 2 * canvas.num_alternatives].reshape(2, -1, len(own))
            canvas.caches = filled
            steps.append(canvas.commit(own, token_ids.astype(np.int64), confidence, scores, entropies, alternatives))
        return steps

    def cache_bytes(self, canvas: Canvas) -> int:
        """Memory that the canvas's keys and values will take when it is at its longest."""
        if canvas.params.cache == "none":
            return 0
        return canvas.passes_per_step * KVCache.num_bytes(self._model.config, len(canvas.tokens), self._model.dtype)

    def _caches(self, canvas: Canvas) -> tuple[KVCache, ...] | None:
        """The canvas's caches, or new ones that its next step, over the whole canvas, will fill."""
        if canvas.params.cache == "none":
            return None
        length = canvas.visible_length
        if canvas.caches is not None and canvas.caches[0].length == length:
            return canvas.caches
        # Before the longer ones are made: two generations of them are more than was accounted for.
        canvas.caches = None
        return tuple(
            KVCache(self._model.config, length, dtype=self._model.dtype, device=self._model.device)
            for _ in range(canvas.passes_per_step)
        )

    def _hidden_rows(
        self,
        canvases: Sequence[Canvas],
        positions: Sequence[np.ndarray],
        caches: Sequence[tuple[KVCache, ...] | None],
    ) -> Iterator[_Rows]:
        """One forward over all sequences; the guided canvases have a second one. Cut to at most MAX_HEAD_ROWS rows."""
        own = list(zip(canvases, positions, caches, strict=True))
        guided = [parts for parts in own if parts[0].params.cfg_scale]
        passes = [_window(canvas, canvas.tokens, wanted, kept[0] if kept else None) for canvas, wanted, kept in own]
        passes += [
            _window(canvas, canvas.unconditional_tokens(), wanted, kept[1] if kept else None)
            for canvas, wanted, kept in guided
        ]
        packed = PackedTokens(
            self._to_device(np.concatenate([one.tokens for one in passes])),
            tuple(len(one.tokens) for one in passes),
            tuple(one.start for one in passes),
            tuple(one.cache for one in passes),
        )
        hidden_RE = self._model.hidden_states(packed, Rows.of(packed, [one.rows for one in passes]))
        per_pass = hidden_RE.split([len(one.rows) for one in passes])
        unconditional = iter(per_pass[len(own) :])
        for canvas, wanted, conditional_RE in zip(canvases, positions, per_pass[: len(own)], strict=True):
            unconditional_RE = next(unconditional) if canvas.params.cfg_scale else None
            for start in range(0, len(wanted), MAX_HEAD_ROWS // 2):
                part = slice(start, start + MAX_HEAD_ROWS // 2)
                yield _Rows(
                    canvas,
                    wanted[part],
                    conditional_RE[part],
                    None if unconditional_RE is None else unconditional_RE[part],
                )

    def _propose(self, group: Sequence[_Rows]) -> Iterator[Tensor]:
        """The proposals of every canvas in a group, from one pass through the head."""
        guided = [rows for rows in group if rows.unconditional_RE is not None]
        hidden = [rows.conditional_RE for rows in group] + [rows.unconditional_RE for rows in guided]
        logits_RV = self._model.head(torch.cat([part for part in hidden if part is not None])).float()
        logits = logits_RV.split([len(rows.positions) for rows in (*group, *guided)])
        unconditional = iter(logits[len(group) :])
        for rows, own_RV in zip(group, logits[: len(group)], strict=True):
            is_guided = rows.unconditional_RE is not None
            guided_RV = guide(own_RV, next(unconditional), rows.canvas.params.cfg_scale) if is_guided else own_RV
            positions_R = self._to_device(rows.positions)
            yield propose(guided_RV, rows.canvas, positions_R, vocab_size=self._model.config.vocab_size)

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._model.device, non_blocking=True)


def _window(canvas: Canvas, tokens: np.ndarray, positions: np.ndarray, cache: KVCache | None) -> _Pass:
    window = canvas.window
    return _Pass(
        tokens[window.start : window.stop], window.start, canvas.prompt_length + positions - window.start, cache
    )


def _of_one_height(proposals: Sequence[Tensor]) -> list[Tensor]:
    """Those with fewer rows, whose canvases ask for fewer alternatives, filled up with zeros."""
    height = max(len(own) for own in proposals)
    return [own if len(own) == height else F.pad(own, (0, 0, 0, height - len(own))) for own in proposals]


def _groups(parts: Iterable[_Rows]) -> Iterator[list[_Rows]]:
    """Neighbours, as many as fit into MAX_HEAD_ROWS."""
    group: list[_Rows] = []
    for rows in parts:
        if group and sum(own.num_rows for own in group) + rows.num_rows > MAX_HEAD_ROWS:
            yield group
            group = []
        group.append(rows)
    if group:
        yield group
