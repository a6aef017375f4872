"""The model interface that samplers, losses and servers use, whatever the architecture and backend."""

from typing import Protocol

import torch
from torch import Tensor

from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.shape import ModelShape
from llada_core.text.special_tokens import SpecialTokens


class MaskPredictor(Protocol):
    """A network that predicts the tokens behind masks."""

    special_tokens: SpecialTokens

    @property
    def shape(self) -> ModelShape: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of hidden states, keys and values."""
        ...

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """Return the hidden state, normed, that predicts the token of each requested row, or of every position.

        Returns:
            [R, E] or [T, E].
        """
        ...

    def head(self, hidden_RE: Tensor) -> Tensor:
        """Return the logits [R, V] of normed hidden states."""
        ...
