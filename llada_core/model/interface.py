"""What a sampler needs of a model, whichever way it computes."""

from typing import Protocol

import torch
from torch import Tensor

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.packed import PackedTokens, Rows
from llada_core.text.special_tokens import SpecialTokens


class MaskPredictor(Protocol):
    """A network that guesses the tokens behind masks."""

    special_tokens: SpecialTokens

    @property
    def config(self) -> LLaDAConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of hidden states, keys and values."""
        ...

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """The last hidden state, normed, at the rows asked for or at every position: [R, E] or [T, E]."""
        ...

    def head(self, hidden_RE: Tensor) -> Tensor:
        """Logits [R, V] of normed hidden states."""
        ...
