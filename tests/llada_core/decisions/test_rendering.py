"""How a question reads as a chat."""

import pytest

from llada_core.decisions.question import Option, Question, predicate
from llada_core.decisions.rendering import decision_turns
from llada_core.errors import InvalidParameterError
from llada_core.text.tokenizer import Message

LABELS = ("A", "B", "C")
INPUT = [Message("user", "The soup was cold.")]


def text_of(question: Question, order: tuple[int, ...]) -> str:
    (turn,) = decision_turns(INPUT, question, order, LABELS)
    return turn.content


def test_a_predicate_is_a_statement_with_yes_and_no() -> None:
    assert text_of(predicate("The guest is happy."), (0, 1)) == (
        "The soup was cold.\n\nThe guest is happy.\nA. yes\nB. no\nAnswer:"
    )


def test_another_order_keeps_the_labels_in_place_and_moves_the_options() -> None:
    assert text_of(predicate("The guest is happy."), (1, 0)).endswith("A. no\nB. yes\nAnswer:")


def test_descriptions_follow_the_options() -> None:
    question = Question("Which?", (Option("food", "taste or warmth"), Option("staff"), Option("room")))
    assert text_of(question, (0, 1, 2)).endswith("Which?\nA. food: taste or warmth\nB. staff\nC. room\nAnswer:")


def test_a_question_joins_the_last_turn_of_the_user_and_follows_the_assistants() -> None:
    conversation = [Message("system", "Be brief."), Message("user", "Hi"), Message("assistant", "Hello!")]
    *before, question = decision_turns(conversation, predicate("They know each other."), (0, 1), LABELS)
    assert before == conversation
    assert question.role == "user"
    assert question.content.startswith("They know each other.\nA. yes")


def test_spaces_around_the_parts_and_empty_parts_leave_no_trace() -> None:
    question = Question(" \n", (Option(" a "), Option("b", "  ")))
    (turn,) = decision_turns([Message("user", " x \n")], question, (0, 1), LABELS)
    assert turn.content == "x\n\nA. a\nB. b\nAnswer:"


def test_a_question_with_one_option_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match="at least 2"):
        Question("Which?", (Option("this"),))
