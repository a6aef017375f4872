"""A model that answers with a given text, token by token in a random order within each block."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.shape import ModelShape
from llada_core.text.special_tokens import SpecialTokens

_VOCAB_SIZE = 3200


class ScriptedModel:
    """Predicts the same answer in every canvas, without caches; EOS follows it.

    Attributes:
        script: the answer's ids.
        gen_length: positions of the response, which lies at the end of every canvas.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    shape = ModelShape(
        num_layers=1, num_key_value_heads=1, head_dim=4, vocab_size=_VOCAB_SIZE, max_sequence_length=1024
    )

    def __init__(self, special_tokens: SpecialTokens) -> None:
        self.special_tokens = special_tokens
        self.script: Sequence[int] = ()
        self.gen_length = 0

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """The id that each row predicts, and how sure the model is of it."""
        starts = torch.tensor(packed.lengths) - self.gen_length
        places_T = packed.positions() - torch.repeat_interleave(starts, torch.tensor(packed.lengths))
        padded = torch.tensor([*self.script, self.special_tokens.eos_id])
        ids_T = padded[places_T.clamp(0, len(self.script))]
        hidden_TE = torch.stack((ids_T, 10 + places_T * 7919 % 13), dim=1).float()
        return hidden_TE if rows is None else hidden_TE[rows.index_R]

    def head(self, hidden_RE: Tensor) -> Tensor:
        logits_RV = torch.zeros(len(hidden_RE), _VOCAB_SIZE)
        return logits_RV.scatter_(1, hidden_RE[:, :1].long(), hidden_RE[:, 1:])
