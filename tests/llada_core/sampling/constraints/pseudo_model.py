"""A model of any vocabulary that costs next to nothing: its logits are fixed functions of the canvas."""

import numpy as np
import torch
from torch import Tensor

from llada_core.model.packed import PackedTokens, Rows
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.prepare import Vocabulary
from llada_core.sampling.proposals import copy_to_host, unpack
from llada_core.sampling.propose import Coordinates, Recipe, draft

_WIDTH = 6


class PseudoModel:
    """Random projections of a token, its position and the sum of its window."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, vocabulary: Vocabulary, *, seed: int = 0, eos_bonus: float = 0.0) -> None:
        self.shape, self.special_tokens = vocabulary.shape, vocabulary.special_tokens
        generator = torch.Generator().manual_seed(seed)
        self._embedding_VE = torch.randn(self.shape.vocab_size, _WIDTH, generator=generator)
        self._positions_LE = torch.randn(self.shape.max_sequence_length, _WIDTH, generator=generator)
        self._head_EV = 2 * torch.randn(_WIDTH, self.shape.vocab_size, generator=generator)
        self._eos_bonus = eos_bonus

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        hidden_TE = self._embedding_VE[packed.tokens_T]
        sums = [part.sum(0, keepdim=True).expand_as(part) for part in hidden_TE.split(packed.lengths)]
        hidden_TE = torch.tanh(hidden_TE + self._positions_LE[packed.positions()] + torch.cat(sums))
        return hidden_TE if rows is None else hidden_TE[rows.index_R]

    def head(self, hidden_RE: Tensor) -> Tensor:
        # Row by row, so that the last bits do not depend on the batch either.
        logits_RV = torch.stack([hidden_E @ self._head_EV for hidden_E in hidden_RE])
        logits_RV[:, self.special_tokens.eos_id] += self._eos_bonus
        return logits_RV


@torch.inference_mode()
def step(canvas: Canvas, logits_LV: np.ndarray) -> None:
    """Run a step with these logits of all response positions."""
    positions_R = canvas.proposal_positions()
    logits_RV = torch.from_numpy(logits_LV[positions_R]).float()
    coordinates = Coordinates.of([(canvas, canvas.step, positions_R)], logits_RV.device)
    drafted = draft(logits_RV, Recipe.of(canvas, canvas.step), coordinates, vocab_size=logits_LV.shape[1])
    proposals = unpack(copy_to_host([drafted.packed]), 0)
    if canvas.progress is None:
        canvas.commit(positions_R, proposals)
    else:
        canvas.commit(positions_R, *canvas.select_viable(positions_R, proposals, drafted))
