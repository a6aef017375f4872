"""One denoising step for any set of canvases: the only one in the project.

`generate`, the server's engine and evaluation all call `Sampler.step`; they differ in the list they pass. A batch
exists for one step, so a request joins or leaves between two steps, whatever its length, step, block or settings.

Shape suffixes: T tokens of the packed batch, R rows at which a token is proposed, V columns of the head.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llada_core.errors import NonFiniteLogitsError
from llada_core.model import LLaDAModelLM, PackedTokens
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.guidance import guide
from llada_core.sampling.proposal import propose


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
        logits = self._guided_logits(canvases, positions)
        proposals = [
            propose(logits_RV, canvas, self._to_device(rows), vocab_size=self._model.config.vocab_size)
            for logits_RV, canvas, rows in zip(logits, canvases, positions, strict=True)
        ]
        # The one copy from device to host of a step.
        on_host = np.split(
            torch.cat(proposals, dim=1).cpu().numpy(), np.cumsum([len(p) for p in positions])[:-1], axis=1
        )
        if not all(np.isfinite(confidence).all() for _, confidence, _ in on_host):
            raise NonFiniteLogitsError("the model's logits are not finite")
        return [
            canvas.commit(rows, token_ids.astype(np.int64), confidence, scores)
            for canvas, rows, (token_ids, confidence, scores) in zip(canvases, positions, on_host, strict=True)
        ]

    def _guided_logits(self, canvases: Sequence[Canvas], positions: Sequence[np.ndarray]) -> list[Tensor]:
        """float32 logits at each canvas's positions, [R, V] each; guided ones have a second sequence in the batch."""
        sequences = [canvas.visible_tokens for canvas in canvases]
        rows = list(zip(canvases, positions, strict=True))
        guided = [(canvas, own) for canvas, own in rows if canvas.params.cfg_scale]
        sequences += [canvas.unconditional_tokens for canvas, _ in guided]
        starts = np.cumsum([0, *(len(sequence) for sequence in sequences[:-1])])
        rows_R = [
            start + canvas.prompt_length + own for start, (canvas, own) in zip(starts, rows + guided, strict=True)
        ]
        packed = PackedTokens(
            self._to_device(np.concatenate(sequences)), tuple(len(sequence) for sequence in sequences)
        )
        logits_RV = self._model.predict(packed, self._to_device(np.concatenate(rows_R))).float()
        logits = list(logits_RV.split([len(own) for own in rows_R]))
        unconditional = iter(logits[len(canvases) :])
        return [
            guide(own, next(unconditional), canvas.params.cfg_scale) if canvas.params.cfg_scale else own
            for canvas, own in zip(canvases, logits[: len(canvases)], strict=True)
        ]

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._model.device, non_blocking=True)
