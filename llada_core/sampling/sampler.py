"""One denoising step for any set of canvases: the only one in the project.

`generate`, the server's engine and evaluation all call `Sampler.step`; they differ in the list they pass. A batch
exists for one step, so a request joins or leaves between two steps, whatever its length, step, block or settings.

Shape suffixes: T tokens of the packed batch, R rows at which a token is proposed, E model width, V columns of the head.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llada_core.errors import NonFiniteLogitsError
from llada_core.model import LLaDAModelLM, PackedTokens
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.guidance import guide
from llada_core.sampling.proposal import propose

# Rows that meet the head at once. It bounds the logits in memory: half a gigabyte at LLaDA-8B's vocabulary.
MAX_HEAD_ROWS = 1024


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
    """A mask predictor and the step that drives it. Holds no state of any request."""

    def __init__(self, model: LLaDAModelLM) -> None:
        self._model = model

    @torch.inference_mode()
    def step(self, canvases: Sequence[Canvas]) -> list[DenoisingStep]:
        """Run the next step of every canvas. Either all of them advance or, on an error, none.

        Raises:
            NonFiniteLogitsError: the model returned NaN for a canvas.
        """
        positions = [canvas.proposal_positions() for canvas in canvases]
        proposals = [
            proposal for group in _groups(self._hidden_rows(canvases, positions)) for proposal in self._propose(group)
        ]
        # The one copy from device to host of a step.
        on_host = torch.cat(proposals, dim=1).cpu().numpy()
        per_canvas = np.split(on_host, np.cumsum([len(own) for own in positions])[:-1], axis=1)
        if not np.isfinite(on_host[1]).all():
            raise NonFiniteLogitsError("the model's logits are not finite")
        return [
            canvas.commit(own, token_ids.astype(np.int64), confidence, scores)
            for canvas, own, (token_ids, confidence, scores) in zip(canvases, positions, per_canvas, strict=True)
        ]

    def _hidden_rows(self, canvases: Sequence[Canvas], positions: Sequence[np.ndarray]) -> Iterator[_Rows]:
        """One forward over all sequences; the guided canvases have a second one. Cut to at most MAX_HEAD_ROWS rows."""
        pairs = list(zip(canvases, positions, strict=True))
        guided = [(canvas, own) for canvas, own in pairs if canvas.params.cfg_scale]
        sequences = [canvas.visible_tokens for canvas in canvases]
        sequences += [canvas.unconditional_tokens for canvas, _ in guided]
        lengths = tuple(len(sequence) for sequence in sequences)
        starts = np.cumsum((0, *lengths[:-1]))
        rows = [start + canvas.prompt_length + own for start, (canvas, own) in zip(starts, pairs + guided, strict=True)]
        hidden_TE = self._model.hidden_states(PackedTokens(self._to_device(np.concatenate(sequences)), lengths))
        hidden_RE = hidden_TE[self._to_device(np.concatenate(rows))].split([len(own) for own in rows])
        unconditional = iter(hidden_RE[len(pairs) :])
        for (canvas, own), conditional_RE in zip(pairs, hidden_RE[: len(pairs)], strict=True):
            unconditional_RE = next(unconditional) if canvas.params.cfg_scale else None
            for start in range(0, len(own), MAX_HEAD_ROWS // 2):
                part = slice(start, start + MAX_HEAD_ROWS // 2)
                yield _Rows(
                    canvas,
                    own[part],
                    conditional_RE[part],
                    None if unconditional_RE is None else unconditional_RE[part],
                )

    def _propose(self, group: Sequence[_Rows]) -> Iterator[Tensor]:
        """Proposals [3, R] of every canvas in a group, from one pass through the head."""
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
