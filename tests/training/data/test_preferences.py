"""Records of preferences, in the shapes that they have elsewhere."""

import pytest

from tests.training.data.records import records_of
from training.data.dialogues import DialogueReader, DialogueRules, Turn, UnusableError
from training.data.formats import ReadReport, detect_format, read_any_text, read_dialogues, read_preferences
from training.errors import DataError

Q, GOOD, BAD = "How far?", "3 km", "3"
USER, CHOSEN, REJECTED = ({"role": r, "content": c} for r, c in (("user", Q), ("assistant", GOOD), ("assistant", BAD)))
SYSTEM = {"role": "system", "content": "Be brief."}
GPT = {"from": "gpt", "value": GOOD}, {"from": "gpt", "value": BAD}

SHAPES = {
    "texts": {"prompt": Q, "chosen": GOOD, "rejected": BAD},
    "turns": {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "whole conversations": {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "whole conversations beside their prompt": {"prompt": Q, "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "whole conversations beside turns": {"prompt": [USER], "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "ShareGPT": {"conversations": [{"from": "human", "value": Q}], "chosen": GPT[0], "rejected": GPT[1]},
    "messages": {"messages": [USER], "chosen": CHOSEN, "rejected": REJECTED},
    "a text and a turn": {"prompt": Q, "chosen": GOOD, "rejected": [REJECTED]},
}


def read(record, **rules):
    reader = DialogueReader(DialogueRules(**rules))
    return reader.preference(record), reader.left_out


def said(dialogue):
    return [(turn.role, turn.content) for turn in dialogue]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_pair(tmp_path, shape):
    report = ReadReport(0)
    (pair,) = read_preferences(records_of(tmp_path, SHAPES[shape]), report)
    assert pair.chosen == [Turn("user", Q), Turn("assistant", GOOD, is_target=True)]
    assert pair.rejected == [Turn("user", Q), Turn("assistant", BAD, is_target=True)]
    assert report.format == "preference" == detect_format(SHAPES[shape]) and not report.left_out


@pytest.mark.parametrize(
    "record",
    [
        {**SHAPES["texts"], "system": "Be brief."},
        {**SHAPES["ShareGPT"], "system": "Be brief."},
        {"prompt": [SYSTEM, USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
        {"prompt": [SYSTEM, USER], "chosen": [USER, CHOSEN], "rejected": [REJECTED]},
        {"prompt": [SYSTEM, USER], "chosen": [SYSTEM, USER, CHOSEN], "rejected": [USER, REJECTED]},
        {"prompt": Q, "chosen": [SYSTEM, USER, CHOSEN], "rejected": [SYSTEM, USER, REJECTED]},
    ],
)
def test_a_system_prompt_is_never_lost(record):
    pair, _ = read(record)
    for dialogue in (pair.chosen, pair.rejected):
        assert said(dialogue)[:2] == [("system", "Be brief."), ("user", Q)] and len(dialogue) == 3


def test_earlier_turns_are_history_and_no_targets():
    greeting = {"role": "assistant", "content": "Hello."}
    for earlier in ([greeting, USER], [USER, greeting, USER]):
        for repeated in ([], earlier):
            pair, _ = read({"prompt": earlier, "chosen": [*repeated, CHOSEN], "rejected": [*repeated, REJECTED]})
            assert [turn.is_target for turn in pair.chosen] == [False] * len(earlier) + [True]
            assert said(pair.chosen)[:-1] == [(turn["role"], turn["content"]) for turn in earlier]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rejected": GOOD}, "the same answer"),
        ({"chosen": [USER, CHOSEN], "rejected": [SYSTEM, USER, REJECTED]}, "answer different prompts"),
        (
            {"prompt": None, "chosen": [USER, CHOSEN], "rejected": [SYSTEM, REJECTED]},
            "different prompts",
        ),
        ({"chosen": [{**USER, "content": "?"}, CHOSEN]}, "chosen does not begin with the prompt"),
        ({"chosen": [CHOSEN, USER]}, "the last turn of chosen is by 'user'; it must be by 'assistant'"),
        ({"rejected": [{**REJECTED, "weight": 0}]}, "the last turn of rejected is marked not to be trained"),
        ({"prompt": None}, 'chosen answers nothing; the record needs a "prompt"'),
        ({"rejected": ""}, "rejected: the answer is empty; --allow-empty-answers"),
        ({"rejected": None}, 'needs a non-empty list of turns "rejected"'),
        ({"rejected": 3}, 'needs a non-empty list of turns "rejected"'),
        ({"rejected": []}, 'needs a non-empty list of turns "rejected"'),
        ({"rejected": "\ud800"}, "half of a surrogate pair"),
        ({"chosen": [{**CHOSEN, "tool_calls": [{}]}]}, "no place for tools"),
        ({"prompt": [{"role": "tool", "content": "x"}]}, "no turns of tools"),
        ({"tools": [{}]}, "no place for tools"),
    ],
)
def test_what_is_no_pair_is_refused_with_the_rule(changes, message):
    with pytest.raises(UnusableError, match=message):
        read({**SHAPES["texts"], **changes})


def test_notes_are_passed_over_and_other_keys_counted():
    _, left_out = read({**SHAPES["texts"], "score_chosen": 9.0, "id": 3, "messages": [USER, CHOSEN], "images": ["x"]})
    assert left_out == {"messages": 1, "images": 1}


def test_an_empty_answer_may_be_allowed():
    pair, _ = read({**SHAPES["texts"], "rejected": ""}, allow_empty_answers=True)
    assert pair.rejected[-1].content == ""


def test_pairs_are_no_dialogues_but_their_text_trains_a_tokenizer(tmp_path):
    with pytest.raises(DataError, match="line 1: has the keys"):
        list(read_dialogues(records_of(tmp_path, SHAPES["texts"]), ReadReport(0)))
    assert list(read_any_text(records_of(tmp_path, SHAPES["ShareGPT"]), ReadReport(0))) == [Q, GOOD, BAD]
