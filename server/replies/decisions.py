"""Decisions, computed on the model threads between the steps of other requests."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from llada_core.decisions.labels import Labels
from llada_core.decisions.orders import option_orders
from llada_core.decisions.prompts import EncodedQuestion
from llada_core.decisions.reading import num_tokens, read_in_parts
from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from server.engine.metrics import AnswerMetrics
from server.http.api_error import bad_request
from server.replies.usage import Usage
from server.schemas.decisions import AnyDecisionRequest, Asked


@dataclass(frozen=True, slots=True)
class Decisions:
    """Answers questions with the probability of each option.

    Attributes:
        labels: the labels of the model's vocabulary; None if its folder has no tokenizer.
        temperature: divides the labels' logits unless a request has one of its own.
        max_model_len: the most tokens of a question, input included.
        max_batch_tokens: the most tokens of one forward pass.
    """

    model: MaskPredictor
    labels: Labels | None
    temperature: float
    max_model_len: int
    max_batch_tokens: int
    metrics: AnswerMetrics

    def require_labels(self, body: AnyDecisionRequest, asked: Sequence[Asked]) -> Labels:
        """The labels, of which there must be one for each option of every question.

        Raises:
            InvalidParameterError: there are too few of them, or none without a tokenizer.
        """
        if self.labels is None:
            raise InvalidParameterError(
                f"{body.input_field} is text, and this model's folder has no tokenizer, which decisions need",
                body.input_field,
            )
        for each in asked:
            self.labels.require(len(each.question.options), each.place_of_options)
        return self.labels

    def require_fitting(
        self, body: AnyDecisionRequest, asked: Sequence[Asked], encoded: Sequence[EncodedQuestion]
    ) -> None:
        """
        Raises:
            APIError: a question has too many tokens.
        """
        for each, question in zip(asked, encoded, strict=True):
            if num_tokens(question) > self.max_model_len:
                input_length = len(question.opening)
                raise bad_request(
                    f"{body.input_field} has {input_length} tokens and {each.place}, with its answer, "
                    f"{num_tokens(question) - input_length}; together they must be at most max_model_len "
                    f"({self.max_model_len})",
                    body.input_field if input_length >= self.max_model_len else "questions",
                    "context_length_exceeded",
                )

    def reading(
        self, labels: Labels, encoded: Sequence[EncodedQuestion], *, order_averages: int
    ) -> Generator[int, None, list[Tensor]]:
        """The work for a model thread, which returns the logits of every question (`read_in_parts`)."""
        logits = yield from read_in_parts(
            self.model, labels, encoded, order_averages=order_averages, max_tokens=self.max_batch_tokens
        )
        self.metrics.observe_decided(len(encoded))
        return logits


def usage_of(encoded: Sequence[EncodedQuestion], *, order_averages: int) -> Usage:
    """What goes through the model: each question once for each order of its options."""
    num_orders = [len(option_orders(question.num_options, order_averages)) for question in encoded]
    num_input = sum(num_tokens(question) * orders for question, orders in zip(encoded, num_orders, strict=True))
    return Usage(num_input, 0, 0, sum(num_orders))
