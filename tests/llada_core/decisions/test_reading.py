"""Probabilities at one mask against a brute-force softmax."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from llada_core import DEMO_FOLDER, load_checkpoint
from llada_core.decisions.labels import Labels
from llada_core.decisions.orders import Order, option_orders
from llada_core.decisions.prompts import EncodedQuestion, encode_questions
from llada_core.decisions.question import Option, Question, predicate
from llada_core.decisions.reading import num_tokens, probabilities, read, read_in_parts
from llada_core.decisions.rendering import decision_turns
from llada_core.errors import NonFiniteLogitsError
from llada_core.model.interface import MaskPredictor
from llada_core.model.packed import PackedTokens, Rows
from llada_core.text.tokenizer import Message, Tokenizer

INPUT = [Message("user", "The capital of France is Paris.")]
QUESTIONS = [
    predicate("The input is true."),
    Question("Which?", (Option("country", "a state"), Option("animal"), Option("number"))),
    Question("How long?", tuple(Option(f"{words} words") for words in range(1, 8))),
    predicate("The input is a question about " + "very " * 40 + "old animals."),
]


@pytest.fixture(scope="module")
def labels(demo_tokenizer: Tokenizer) -> Labels:
    return Labels.of(demo_tokenizer)


@pytest.fixture(scope="module")
def encoded(demo_tokenizer: Tokenizer, demo: MaskPredictor, labels: Labels) -> list[EncodedQuestion]:
    return encode_questions(demo_tokenizer, INPUT, QUESTIONS, labels)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("order_averages", [1, 2, 5])
def test_probabilities_equal_a_softmax_over_the_label_logits_of_plain_forwards(
    demo: MaskPredictor,
    demo_tokenizer: Tokenizer,
    labels: Labels,
    encoded: Sequence[EncodedQuestion],
    order_averages: int,
    temperature: float,
) -> None:
    network = load_checkpoint(DEMO_FOLDER, dtype="float32").eval()

    def plain(question: Question, order: Order) -> dict[int, float]:
        """The probability of each option, from every logit of one sequence without any batch."""
        chat = demo_tokenizer.encode_chat(decision_turns(INPUT, question, order, labels.texts))
        with torch.no_grad():
            logits_V = network(torch.tensor([[*chat, 2, 5]])).logits[0, len(chat)]
        weights = [float((logits_V[labels.token_ids[place]] / temperature).exp()) for place in range(len(order))]
        return {option: weights[place] / sum(weights) for place, option in enumerate(order)}

    found = read(demo, labels, encoded, order_averages=order_averages)
    for question, logits_OK in zip(QUESTIONS, found, strict=True):
        by_order = [plain(question, order) for order in option_orders(len(question.options), order_averages)]
        expected = [sum(each[option] for each in by_order) / len(by_order) for option in range(len(question.options))]
        assert probabilities(logits_OK, temperature).tolist() == pytest.approx(expected, abs=1e-5)
        assert float(probabilities(logits_OK, temperature).sum()) == pytest.approx(1.0, abs=1e-12)


def test_a_batch_equals_one_by_one_however_it_is_split(
    demo: MaskPredictor, labels: Labels, encoded: Sequence[EncodedQuestion]
) -> None:
    together = read(demo, labels, encoded, order_averages=4)
    alone = [read(demo, labels, [question], order_averages=4)[0] for question in encoded]
    for whole, single in zip(together, alone, strict=True):
        torch.testing.assert_close(whole, single, atol=1e-4, rtol=0)
    again = read(demo, labels, encoded, order_averages=4)
    assert all(torch.equal(first, second) for first, second in zip(together, again, strict=True))


def exhaust(parts) -> tuple[list[int], list[Tensor]]:  # type: ignore[no-untyped-def]
    tokens = []
    while True:
        try:
            tokens.append(next(parts))
        except StopIteration as end:
            return tokens, end.value


@pytest.mark.parametrize("max_tokens", [1, 256, 4096])
def test_forward_passes_are_as_few_as_the_limit_allows_and_hold_nothing_but_the_questions(
    demo: MaskPredictor,
    labels: Labels,
    encoded: Sequence[EncodedQuestion],
    max_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forwards, heads = [], []
    model = type(demo)
    hidden_states, head = model.hidden_states, model.head

    def noted(self: MaskPredictor, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        forwards.append(packed)
        return hidden_states(self, packed, rows)

    monkeypatch.setattr(model, "hidden_states", noted)
    monkeypatch.setattr(model, "head", lambda self, hidden: heads.append(len(hidden)) or head(self, hidden))
    parts = read_in_parts(demo, labels, encoded * 4, order_averages=2, max_tokens=max_tokens)
    tokens, _ = exhaust(parts)
    total = sum(map(num_tokens, encoded)) * 2 * 4
    assert tokens == [len(packed.tokens_T) for packed in forwards]
    assert sum(tokens) == total
    assert sum(heads) == 2 * 16, "the head sees one row for each question and order"
    longest = max(map(num_tokens, encoded))
    assert all(each <= max(max_tokens, longest) for each in tokens)
    assert all(first + second > max_tokens for first, second in itertools.pairwise(tokens))


def test_the_order_of_the_options_in_the_question_does_not_matter_to_two_options(
    demo: MaskPredictor, labels: Labels, demo_tokenizer: Tokenizer
) -> None:
    question = Question("Which?", (Option("country"), Option("animal")))
    turned = Question("Which?", question.options[::-1])
    encoded = encode_questions(demo_tokenizer, INPUT, [question, turned], labels)
    first, second = (probabilities(logits) for logits in read(demo, labels, encoded))
    torch.testing.assert_close(first, second.flip(0), atol=1e-6, rtol=0)


def test_a_vocabulary_without_an_end_of_turn_closes_with_its_end_of_text(
    demo: MaskPredictor, labels: Labels, encoded: Sequence[EncodedQuestion], monkeypatch: pytest.MonkeyPatch
) -> None:
    (with_turn,) = read(demo, labels, encoded[:1])
    monkeypatch.setattr(demo, "special_tokens", replace(demo.special_tokens, eot_id=None))
    (without,) = read(demo, labels, encoded[:1])
    monkeypatch.setattr(demo, "special_tokens", replace(demo.special_tokens, eos_id=5))
    assert not torch.equal(without, with_turn)
    assert torch.equal(read(demo, labels, encoded[:1])[0], with_turn)


def test_logits_that_are_not_finite_are_an_error(
    demo: MaskPredictor, labels: Labels, encoded: Sequence[EncodedQuestion], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = type(demo).head
    monkeypatch.setattr(type(demo), "head", lambda self, hidden: head(self, hidden) * torch.nan)
    with pytest.raises(NonFiniteLogitsError):
        read(demo, labels, encoded)
