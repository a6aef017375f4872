"""The rows of a few tokens, trained in a frozen embedding and head: for tokens that were added to a tokenizer.

A base model has never seen such tokens; their rows are as good as random, and adapters of the blocks leave them so.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from llada_core.model.network import Network


class TokenRows(nn.Module):
    """A frozen embedding or head, [V, E], some of whose rows are trained in float32.

    Attributes:
        token_ids: the tokens of the rows.
    """

    def __init__(self, base: nn.Module, token_ids: Sequence[int]) -> None:
        super().__init__()
        self.base = base
        self.token_ids = tuple(token_ids)
        self.rows = nn.Parameter(base.get_parameter("weight").detach()[list(token_ids)].float())

    @property
    def weight(self) -> Tensor:
        """The whole matrix with the trained rows in it; a copy."""
        weight = self.base.get_parameter("weight")
        return weight.index_copy(0, self._ids(weight.device), self.rows.to(weight.dtype))

    def _ids(self, device: torch.device) -> Tensor:
        return torch.tensor(self.token_ids, device=device)


class _Embedding(TokenRows):
    def forward(self, tokens_T: Tensor) -> Tensor:
        hidden_TE: Tensor = self.base(tokens_T)
        is_hit_TN = tokens_T.unsqueeze(-1) == self._ids(tokens_T.device)
        row_TE = functional.embedding(is_hit_TN.int().argmax(dim=-1), self.rows).to(hidden_TE.dtype)
        return torch.where(is_hit_TN.any(dim=-1, keepdim=True), row_TE, hidden_TE)


class _Head(TokenRows):
    def forward(self, hidden_RE: Tensor) -> Tensor:
        logits_RV: Tensor = self.base(hidden_RE)
        rows_RN = functional.linear(hidden_RE, self.rows.to(hidden_RE.dtype)).to(logits_RV.dtype)
        return logits_RV.index_copy(-1, self._ids(hidden_RE.device), rows_RN)


def train_rows(model: Network, token_ids: Sequence[int]) -> None:
    """Let the rows of these tokens be trained, in the embedding and, where that is another matrix, in the head."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    _replace(model, embedding, _Embedding(embedding, token_ids))
    if head is not embedding:
        _replace(model, head, _Head(head, token_ids))


def merge_rows(model: Network) -> None:
    """Write trained rows into the matrices that they belong to, which leaves a plain LLaDA model."""
    for module in [module for module in model.modules() if isinstance(module, TokenRows)]:
        module.base.get_parameter("weight").data = module.weight.detach()
        _replace(model, module, module.base)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    name = next(name for name, module in model.named_modules() if module is old)
    parent, _, child = name.rpartition(".")
    model.get_submodule(parent).register_module(child, new)
