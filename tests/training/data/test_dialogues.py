import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.dialogues import DialogueReader, DialogueRules, Turn, UnusableError

ASKED, ANSWERED = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}


def read(record, **rules):
    reader = DialogueReader(DialogueRules(**rules))
    kind = (
        "messages"
        if record.keys() & {"messages", "conversations"}
        else "alpaca"
        if "output" in record
        else "completion"
    )
    return getattr(reader, kind)(record), reader.left_out


def targets(record, **rules):
    return [turn.content for turn in read(record, **rules)[0] if turn.is_target]


def chat(*answers, **record):
    turns = [turn for answer in answers for turn in (ASKED, {"role": "assistant", **answer})]
    return {"messages": turns, **record}


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"loss": False}, {"train": False}, {"training": 0}])
def test_a_turn_that_is_marked_not_to_be_trained_is_no_target(mark):
    assert targets(chat({"content": "WRONG", **mark}, {"content": "right"})) == ["right"]


@pytest.mark.parametrize("mark", [{"weight": 1}, {"loss": True}, {"train": True}, {"weight": None}, {}])
def test_a_turn_that_is_marked_to_be_trained_or_not_marked_is_a_target(mark):
    assert targets(chat({"content": "one", **mark}, {"content": "two"})) == ["one", "two"]


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ({"weight": 0.5}, r"messages\[1\].weight is 0.5; it must be true or false, 1 or 0"),
        ({"train": "no"}, r"messages\[1\].train is 'no'"),
        ({"loss": [0]}, r"messages\[1\].loss is \[0\]"),
        ({"weight": 1, "train": False}, r"messages\[1\]: weight and train say different things"),
    ],
)
def test_a_mark_between_yes_and_no_is_refused(mark, message):
    with pytest.raises(UnusableError, match=message):
        read(chat({"content": "x", **mark}))


def test_only_an_assistant_can_be_trained():
    with pytest.raises(UnusableError, match=r"messages\[0\] is by 'user' and marked to be trained"):
        read({"messages": [{**ASKED, "train": True}, ANSWERED]})
    assert targets({"messages": [{**ASKED, "weight": 0}, ANSWERED]}) == ["A"]


def test_of_all_answers_only_the_last_may_be_trained():
    assert targets(chat({"content": "one"}, {"content": "two"}), train_on="last") == ["two"]
    assert targets(chat({"content": "one", "train": True}, {"content": "two", "train": False}), train_on="last") == []


@pytest.mark.parametrize("key", ["system", "system_prompt"])
@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASKED, ANSWERED]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
        {"prompt": "Q", "completion": "A"},
        {"instruction": "Q", "output": "A"},
    ],
    ids=lambda record: next(iter(record)),
)
def test_a_system_prompt_beside_the_dialogue_is_its_first_turn(record, key):
    dialogue, left_out = read({**record, key: " Be brief. "})
    assert dialogue == [Turn("system", "Be brief."), Turn("user", "Q"), Turn("assistant", "A", is_target=True)]
    assert not left_out


def test_two_system_prompts_must_agree():
    record = {"messages": [{"role": "system", "content": "Be brief."}, ASKED, ANSWERED]}
    assert read({**record, "system": "Be brief."})[0] == read(record)[0]
    with pytest.raises(UnusableError, match="system: given beside a system turn that says something else"):
        read({**record, "system": "Be long."})


def test_alpacas_history_comes_before_the_instruction():
    record = {"instruction": "Q", "output": "A", "history": [["one", "1"], ["two", "2"]], "system": "S"}
    dialogue, _ = read(record)
    assert [turn.content for turn in dialogue] == ["S", "one", "1", "two", "2", "Q", "A"]
    assert [turn.role for turn in dialogue] == ["system", *["user", "assistant"] * 3]
    assert targets(record) == ["1", "2", "A"]
    assert read({**record, "history": json.dumps(record["history"])}) == read(record)
    assert read({**record, "history": []})[0] == read({**record, "history": "[]"})[0]


@pytest.mark.parametrize("history", [["a", "b"], [["a"]], [["a", 3]], "a", [{"q": "a"}]])
def test_a_history_that_is_no_list_of_pairs_is_refused(history):
    with pytest.raises(UnusableError, match="history"):
        read({"instruction": "Q", "output": "A", "history": history})


@pytest.mark.parametrize("text", ["    return 1\n", "\tx", "a\n\n", " "])
def test_a_completion_keeps_its_spaces(text):
    if not text.strip():
        with pytest.raises(UnusableError, match="the answer is empty"):
            read({"prompt": "Q", "completion": text})
        return
    assert targets({"prompt": "Q", "completion": text}) == [text]
    assert targets({"instruction": "Q", "output": text}) == [text]


def test_turns_are_trimmed_as_the_chat_format_does():
    dialogue, _ = read({"messages": [{"role": "user", "content": " Q\n"}, {"role": "assistant", "content": "\nA "}]})
    assert [turn.content for turn in dialogue] == ["Q", "A"]


def test_parts_of_a_text_are_joined():
    parts = [{"type": "text", "text": "one "}, "two", {"type": "output_text", "text": "."}]
    assert targets({"messages": [ASKED, {"role": "assistant", "content": parts}]}) == ["one two."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], r'messages\[0\].content\[0\] is of type "image_url"'),
        ([{"type": "text"}], 'is of type "text"; only text can be trained'),
        ([3], r"messages\[0\].content\[0\] is 3"),
        (None, r"messages\[0\].content is None; it must be text"),
        ({"text": "x"}, r"messages\[0\].content is {'text': 'x'}"),
    ],
)
def test_a_content_that_is_no_text_is_refused_with_what_it_is(content, message):
    with pytest.raises(UnusableError, match=message):
        read({"messages": [{"role": "user", "content": content}, ANSWERED]})


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "critic", "content": "x"}, r"messages\[1\] is by 'critic'; known are system"),
        ({"from": "bing", "value": "x"}, r"messages\[1\] is by 'bing'"),
        ({"role": "tool", "content": "4"}, r'messages\[1\] is by "tool"; the chat format has no turns of tools'),
        ({"from": "observation", "value": "4"}, r'messages\[1\] is by "observation"'),
        ({"role": 3, "content": "x"}, r"messages\[1\] is by 3"),
        ({"role": ["user"], "content": "x"}, r"messages\[1\] is by \['user'\]"),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
            r"messages\[1\].tool_calls: the chat format",
        ),
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, r"messages\[1\].tool_calls"),
        ({"role": "assistant"}, r"messages\[1\] has the keys \['role'\]; it needs"),
        ({"content": "x"}, r"messages\[1\] has the keys \['content'\]"),
        ("x", r"messages\[1\] is 'x'; it must be an object"),
    ],
)
def test_a_turn_that_cannot_be_trained_is_refused_with_what_was_found(turn, message):
    with pytest.raises(UnusableError, match=message):
        read({"messages": [ASKED, turn, ASKED, ANSWERED]})


@pytest.mark.parametrize("key", ["tools", "functions"])
def test_tools_beside_a_dialogue_are_refused_unless_there_are_none(key):
    with pytest.raises(UnusableError, match=f"{key}: the chat format has no place for tools"):
        read({"messages": [ASKED, ANSWERED], key: [{"name": "add"}]})
    for none in (None, [], "[]", ""):
        assert targets({"messages": [ASKED, ANSWERED], key: none}) == ["A"]


def test_what_says_more_than_the_text_is_counted_by_name_and_notes_are_not():
    answer = {**ANSWERED, "reasoning_content": "Because.", "name": "bot"}
    record = {"messages": [ASKED, answer, ASKED, answer], "images": ["x.png"], "id": 3, "source": "web", "label": None}
    _, left_out = read(record)
    assert left_out == {"messages[].reasoning_content": 2, "messages[].name": 2, "images": 1}


def read_thinking(record):
    reader = DialogueReader(writes_thinking=True)
    return [turn.thinking for turn in reader.messages(record)], reader.left_out


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_thinking_is_read_where_the_chat_format_writes_it(key):
    record = chat({"content": "A", key: "\n Because. \n"}, {"content": "B", key: None}, {"content": "C"})
    record["messages"][0] = {**ASKED, key: "I wonder."}
    assert read_thinking(record) == (["", " Because. ", "", "", "", ""], {f"messages[].{key}": 1})
    both = chat({"content": "A", "reasoning_content": "x", "reasoning": "x"})
    assert read_thinking(both) == (["", "x"], {})


@pytest.mark.parametrize(
    ("thinking", "message"),
    [
        ({"reasoning_content": ["x"]}, r'needs a string "messages\[1\].reasoning_content"'),
        ({"reasoning_content": "x", "reasoning": "y"}, r"messages\[1\]: reasoning and reasoning_content say different"),
    ],
)
def test_thinking_that_is_no_text_or_two_texts_is_refused(thinking, message):
    with pytest.raises(UnusableError, match=message):
        read_thinking(chat({"content": "A", **thinking}))


def test_two_answers_may_differ_in_their_thinking():
    answers = ({"role": "assistant", "content": "A", "reasoning_content": text} for text in ("x", "y"))
    record = dict(zip(("chosen", "rejected"), answers, strict=True), prompt="Q")
    pair = DialogueReader(writes_thinking=True).preference(record)
    assert (pair.chosen[-1].thinking, pair.rejected[-1].thinking) == ("x", "y")
    with pytest.raises(UnusableError, match="the same answer"):
        DialogueReader().preference(record)


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASKED, {"role": "assistant", "content": " \n"}]},
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": ""}]},
        {"prompt": "Q", "completion": ""},
        {"instruction": "Q", "output": ""},
        {"instruction": "Q", "output": "A", "history": [["one", ""]]},
        {"messages": [ASKED, {"role": "assistant", "content": ""}, ASKED, ANSWERED]},
    ],
)
def test_an_empty_answer_is_refused_in_every_format_unless_it_is_allowed(record):
    with pytest.raises(UnusableError, match="the answer is empty; --allow-empty-answers"):
        read(record)
    assert "" in targets(record, allow_empty_answers=True)


def test_a_prompt_and_completion_may_be_turns_of_which_only_the_second_are_trained():
    record = {"prompt": [ASKED, ANSWERED, ASKED], "completion": [{"role": "assistant", "content": "B"}], "system": "S"}
    assert [turn.role for turn in read(record)[0]] == ["system", "user", "assistant", "user", "assistant"]
    assert targets(record) == ["B"]
    with pytest.raises(UnusableError, match='needs a non-empty list of turns "prompt"'):
        read({"prompt": "Q", "completion": [ANSWERED]})


def test_a_list_of_turns_may_be_written_as_text():
    record = {"messages": [ASKED, ANSWERED]}
    assert read({"messages": json.dumps(record["messages"])}) == read(record)
    for text in ("Q", "[", "3", "{}"):
        with pytest.raises(UnusableError, match='needs a non-empty list of turns "messages"'):
            read({"messages": text})


def test_a_tables_turns_may_have_the_keys_of_both_forms():
    turns = [{"role": None, "content": None, "from": "human", "value": "Q"}, {**ANSWERED, "from": None, "value": None}]
    assert targets({"conversations": turns}) == ["A"]


turn_texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)
marked_answers = st.lists(st.tuples(turn_texts, turn_texts, st.sampled_from([None, 0, 1, True, False])), min_size=1)


@given(marked_answers, st.one_of(st.none(), turn_texts), st.sampled_from(["messages", "conversations"]))
def test_targets_are_exactly_the_answers_that_are_marked(answers, system, key):
    names = ("role", "content", "user", "assistant") if key == "messages" else ("from", "value", "human", "gpt")
    turns = []
    for question, answer, mark in answers:
        turns += [{names[0]: names[2], names[1]: question}, {names[0]: names[3], names[1]: answer, "weight": mark}]
    record = {key: turns, "system": system}
    assert targets(record) == [answer for _, answer, mark in answers if mark is None or mark]
    assert [turn.content for turn in read(record)[0]] == [
        *([system] if system else []),
        *(text for question, answer, _ in answers for text in (question, answer)),
    ]
