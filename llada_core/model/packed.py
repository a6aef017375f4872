"""A ragged batch without padding.

Shape suffixes used in this package: B sequences, L positions of one padded sequence, T positions of the whole batch
laid end to end, R rows at which logits are wanted, E model width, H heads, D width of one head, V columns of the head
(`embedding_size`). `tokens_T` is one long vector, `logits_RV` a matrix.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """Sequences laid end to end. A position attends to its own sequence only.

    Attributes:
        tokens_T: int64 token ids.
        lengths: the length of each sequence; they sum to T.
    """

    tokens_T: Tensor
    lengths: tuple[int, ...]

    def positions(self) -> Tensor:
        """The position of every token within its own sequence, int64 [T]."""
        device = self.tokens_T.device
        return torch.cat([torch.arange(length, device=device) for length in self.lengths])
