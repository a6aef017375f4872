"""Read the probability of every answer at one mask.

Each question is one sequence for each order of its options: its prompt, one mask, and the token that ends the
assistant's turn, which says that the answer is a single token. Sequences of any lengths go through the model as one
ragged batch. The logits are those of LLaDA's own head; only the labels' columns are kept.

Shape suffixes: T tokens and R rows of a batch, V columns of the head, L labels, O orders of one question, K its
options.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llada_core.decisions.labels import Labels
from llada_core.decisions.orders import Order, option_orders
from llada_core.decisions.prompts import EncodedQuestion
from llada_core.errors import NonFiniteLogitsError
from llada_core.model.interface import MaskPredictor
from llada_core.model.packed import PackedTokens, Rows

# The number of tokens that go through the model at once.
_MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class _Row:
    """A question in one order, and where its logits go."""

    question: EncodedQuestion
    order: Order
    logits_K: Tensor

    @property
    def num_tokens(self) -> int:
        return num_tokens(self.question)


def num_tokens(question: EncodedQuestion) -> int:
    """Return the number of tokens that each order of a question sends through the model: its own, mask and end."""
    return question.length + 2


def read_in_parts(
    model: MaskPredictor,
    labels: Labels,
    questions: Sequence[EncodedQuestion],
    *,
    order_averages: int,
    max_tokens: int = _MAX_TOKENS,
) -> Generator[int, None, list[Tensor]]:
    """Ask every question in several orders of its options; yields the number of tokens after each forward pass.

    Args:
        order_averages: the number of orders, as for `option_orders`.
        max_tokens: the largest forward pass; a single sequence may exceed it.

    Returns:
        The logits of each question's options, float64 [O, K]: a row for each order, the columns as the options were
        given.

    Raises:
        NonFiniteLogitsError: the model returned NaN or infinity for a label.
    """
    rows, logits = [], []
    for question in questions:
        orders = option_orders(question.num_options, order_averages)
        logits_OK = torch.empty(len(orders), question.num_options, dtype=torch.float64)
        rows += [_Row(question, order, logits_K) for order, logits_K in zip(orders, logits_OK, strict=True)]
        logits.append(logits_OK)
    for batch in _batches(rows, max_tokens):
        for row, logits_L in zip(batch, _label_logits(model, labels, batch), strict=True):
            row.logits_K[list(row.order)] = logits_L[: len(row.order)]
        yield sum(row.num_tokens for row in batch)
    return logits


def read(
    model: MaskPredictor, labels: Labels, questions: Sequence[EncodedQuestion], *, order_averages: int = 2
) -> list[Tensor]:
    """Return what `read_in_parts` returns, at once."""
    parts = read_in_parts(model, labels, questions, order_averages=order_averages)
    while True:
        try:
            next(parts)
        except StopIteration as end:
            return end.value


def probabilities(logits_OK: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the probability of each option, [K]: softmax(logits / temperature), averaged over the orders."""
    return (logits_OK / temperature).softmax(dim=1).mean(dim=0)


def _batches(rows: Iterable[_Row], max_tokens: int) -> Iterator[list[_Row]]:
    """Split rows into batches of at most `max_tokens`, each of at least one row."""
    batch: list[_Row] = []
    room = max_tokens
    for row in rows:
        if batch and row.num_tokens > room:
            yield batch
            batch, room = [], max_tokens
        batch.append(row)
        room -= row.num_tokens
    yield batch


@torch.inference_mode()
def _label_logits(model: MaskPredictor, labels: Labels, rows: Sequence[_Row]) -> Tensor:
    """Return the logits of as many labels as the longest list of options needs, float64 [R, L] on the host."""
    special = model.special_tokens
    end_id = special.eos_id if special.eot_id is None else special.eot_id
    sequences = [[*row.question.ids(row.order), special.mask_id, end_id] for row in rows]
    lengths = torch.tensor([len(ids) for ids in sequences])
    tokens_T = torch.tensor([token_id for ids in sequences for token_id in ids], device=model.device)
    # The mask is the last token but one.
    masks_R = (lengths.cumsum(0) - 2).to(model.device)
    packed = PackedTokens(tokens_T, tuple(lengths.tolist()), block_lengths=(model.shape.block_length,) * len(sequences))
    logits_RV = model.head(model.hidden_states(packed, Rows(masks_R, (1,) * len(rows))))
    label_ids = labels.token_ids[: max(len(row.order) for row in rows)]
    logits_RL = logits_RV[:, list(label_ids)].double().cpu()
    if not logits_RL.isfinite().all():
        raise NonFiniteLogitsError("the model's logits are not finite")
    return logits_RL
