"""Thinking at the beginning of an answer, told apart from what is said."""

import random

import pytest

from llada_core.text.thinking import CLOSING, OPENING, Divided, ThinkingForm, ThinkingReader, divided

CASES = [
    ("free", "<think>a b</think>c", ("a b", "c")),
    ("free", "\n <think>\na\n</think>\n\nc", ("\na\n", "\n\nc")),
    ("free", "c", (None, "c")),
    ("free", " \n c", (None, " \n c")),
    ("free", "", (None, "")),
    ("free", "<think></think>c", ("", "c")),
    # Not at the beginning, not closed, or not complete.
    ("free", "c <think>a</think>", (None, "c <think>a</think>")),
    ("free", "a</think>c", (None, "a</think>c")),
    ("free", "<think>a", ("a", "")),
    ("free", "<think>a</thin", ("a</thin", "")),
    ("free", "<thin", (None, "<thin")),
    ("free", "<thinker>", (None, "<thinker>")),
    # Tags within the thinking and behind it are text.
    ("free", "<think>a<think>b</think>c<think>d</think>", ("a<think>b", "c<think>d</think>")),
    ("free", "<think>a</</think>c", ("a</", "c")),
    ("open", "a</think>c", ("a", "c")),
    ("open", "a", ("a", "")),
    ("open", "", ("", "")),
    ("open", "<think>a</think>c", ("a", "c")),
    ("open", "<tank></think>", ("<tank>", "")),
    ("closed", "<think>a</think>c", (None, "<think>a</think>c")),
]


def read(text, form, sizes):
    reader, pieces = ThinkingReader(form), []
    while text:
        size = next(sizes)
        pieces.append(reader.push(text[:size]))
        text = text[size:]
    pieces.append(reader.push("", is_last=True))
    return reader, Divided(*map("".join, zip(*pieces, strict=True)))


@pytest.mark.parametrize(("beginning", "text", "expected"), CASES, ids=str)
def test_an_answer_is_divided_the_same_however_it_comes(beginning, text, expected):
    thinking, said = expected
    form = ThinkingForm(beginning)
    rng = random.Random(0)
    for largest in (1, 2, 3, 100):
        sizes = iter(lambda largest=largest: rng.randint(1, largest), 0)
        reader, pieces = read(text, form, sizes)
        assert pieces == (thinking or "", said)
        assert reader.thinking == thinking
        if thinking:
            assert text[reader.start :].startswith(thinking)
    assert ThinkingReader(form).divide(text) == (thinking or "", said)


def test_text_is_given_out_as_soon_as_no_tag_can_begin_in_it():
    reader = ThinkingReader(ThinkingForm())
    pieces = [reader.push(text) for text in ("<th", "ink>so", " <", "b> </th", "is", "</think>", "<", "think>")]
    assert pieces == [
        ("", ""), ("so", ""), (" ", ""), ("<b> ", ""), ("</this", ""), ("", ""), ("", "<"), ("", "think>"),
    ]  # fmt: skip


def test_a_call_ends_thinking_that_was_not_closed():
    form = ThinkingForm(interruption="<tool_call>")
    for text in ("<think>a<tool_call>\n{}", "<think>a</think><tool_call>\n{}"):
        for size in (1, 4, 100):
            assert read(text, form, iter(lambda size=size: size, 0))[1] == ("a", "<tool_call>\n{}")


def test_a_draft_leaves_what_was_read_as_it_is():
    reader = ThinkingReader(ThinkingForm())
    reader.push("<think>a")
    assert reader.divide("<think>a▒</think>▒") == ("a▒", "▒")
    assert (reader.thinking, reader.push("b</think>c", is_last=True)) == ("a", ("b", "c"))


@pytest.mark.parametrize(("beginning", "text", "expected"), CASES, ids=str)
def test_an_answer_goes_on_wherever_the_text_in_the_prompt_ends(beginning, text, expected):
    whole, _ = read(text, ThinkingForm(beginning), iter(lambda: 100, 0))
    thinking_end = whole.start + len(expected[0] or "")
    for border in range(len(text) + 1):
        written, answer = text[:border], text[border:]
        thinking, said = text[max(whole.start, border) : thinking_end], answer[-len(expected[1]) or len(answer) :]
        form = ThinkingForm(beginning, written=written)
        for size in (1, 3, 100):
            reader, pieces = read(answer, form, iter(lambda size=size: size, 0))
            assert pieces == (thinking, said)
            assert (reader.thinking or "") == thinking
            assert answer[reader.start :].startswith(thinking)
        assert ThinkingReader(form).divide(answer) == (thinking, said)


@pytest.mark.parametrize(
    ("written", "answer", "thinking", "said"),
    [
        ("<thi", "nk>a</think>c", "a", "c"),
        ("<thi", "s", None, "s"),
        ("<think>a</thi", "nk>c", "", "c"),
        ("<think>a</think>", "<think>c", None, "<think>c"),
        ("<think>a<tool_c", "all>{}", "", "all>{}"),
        ("<think>a<tool_call>", "{}", None, "{}"),
    ],
)
def test_a_tag_that_the_prompt_begins_is_no_part_of_the_answer(written, answer, thinking, said):
    reader = ThinkingReader(ThinkingForm(interruption="<tool_call>", written=written))
    assert reader.push(answer, is_last=True) == (thinking or "", said)
    assert reader.thinking == thinking


def test_a_turn_of_the_history_is_divided_as_templates_do():
    assert divided(f"{OPENING}\na\nb\n{CLOSING}\n\nc\n") == ("a\nb", "c\n")
    assert divided("\nc") == ("", "\nc")
