"""Thinking in chat answers, told apart from what is said; a model that writes a given text stands for a real one."""

import json

import openai
import pytest

from llada_core.text.thinking import ThinkingForm, ThinkingReader
from server.schemas.answers import ResponseObject
from tests.llada_core.text.test_chat_template import THINKING_TEMPLATE, TOOL_TEMPLATE
from tests.server.conftest import events_of
from tests.server.scripted import QUESTION, talking

ANSWER = "<think>\n12 + 7 is <b> 19.\n</think>\n\nIt is 19."
THOUGHT, SAID = "\n12 + 7 is <b> 19.\n", "\n\nIt is 19."
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"properties": {"a": {"type": "integer"}}}}}
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 12}}\n</tool_call>'


@pytest.fixture(scope="module")
def talk(demo):
    with talking(demo, TOOL_TEMPLATE + "{# </think> #}") as talk:
        yield talk


def num_tokens(talk, text, start, stop):
    """The number of the text's tokens that begin between two characters."""
    tokens = talk.tokenizer.encode_plain(text)
    begins = [len(talk.tokenizer.decode(tokens[:index])) for index in range(len(tokens))]
    return sum(start <= begin < stop for begin in begins)


def test_thinking_is_apart_plain_and_streamed_and_its_tokens_are_counted(talk):
    choice, reasoning_tokens = talk.both(ANSWER)
    message = choice["message"]
    assert (message["reasoning_content"], message["reasoning"], message["content"]) == (THOUGHT, THOUGHT, SAID)
    assert choice["finish_reason"] == "stop"
    start = ANSWER.index(THOUGHT)
    assert reasoning_tokens == num_tokens(talk, ANSWER, start, start + len(THOUGHT)) > 5


@pytest.mark.parametrize(
    ("text", "thinking", "content"),
    [
        ("It is 19.", None, "It is 19."),
        ("It is <think>19</think>.", None, "It is <think>19</think>."),
        ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
        ("<think></think>b", "", "b"),
        ("<think>a</think>", "a", None),
        ("", None, ""),
    ],
)
def test_only_a_tag_at_the_beginning_opens_thinking(talk, text, thinking, content):
    message = talk.both(text)[0]["message"]
    assert (message["reasoning_content"], message["content"]) == (thinking, content)


def test_thinking_that_the_length_cuts_off_is_thinking(talk):
    choice, reasoning_tokens = talk.both("<think>" + "so " * 60, max_tokens=40)
    message = choice["message"]
    assert choice["finish_reason"] == "length" and message["content"] is None
    assert message["reasoning_content"].startswith("so so so") and reasoning_tokens > 20


def test_a_stop_string_across_the_border_ends_the_text_before_it(talk):
    choice, _ = talk.both(ANSWER, stop="k>\n\nIt")
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "k>\n\nIt")
    assert choice["message"]["reasoning_content"] == THOUGHT + "</thin" and choice["message"]["content"] is None
    # One that might have begun, and did not.
    assert talk.both(ANSWER, stop="k>\n\nIn")[0]["message"]["content"] == SAID


def test_every_choice_has_thinking_of_its_own(talk):
    answer = talk.plain(ANSWER, n=3)
    assert [choice["message"]["reasoning_content"] for choice in answer["choices"]] == [THOUGHT] * 3
    one = talk.plain(ANSWER)["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 3 * one
    _, chunks = talk.streamed(ANSWER, n=3)
    for index in range(3):
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == THOUGHT
        assert "".join(delta.get("content") or "" for delta in deltas) == SAID


def test_log_probabilities_are_those_of_all_tokens_tags_included(talk):
    body = {"logprobs": True, "return_token_ids": True}
    choice = talk.plain(ANSWER, **body)["choices"][0]
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"]) == len(talk.model.script)
    choices, _ = talk.streamed(ANSWER, **body)
    streamed = [one for part in choices if part["logprobs"] for one in part["logprobs"]["content"]]
    assert streamed == choice["logprobs"]["content"]
    assert [token for part in choices for token in part["token_ids"]] == choice["token_ids"]


def test_a_call_follows_thinking_closed_or_not(talk):
    for text, content in ((f"{ANSWER}\n{CALL}", SAID + "\n"), (f"<think>{THOUGHT}{CALL}", None)):
        choice, _ = talk.both(text, tools=[TOOL], tool_choice="auto")
        message = choice["message"]
        (call,) = message["tool_calls"]
        assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"a": 12})
        assert (message["reasoning_content"], message["content"]) == (THOUGHT, content)
        assert choice["finish_reason"] == "tool_calls"


def test_text_that_might_have_begun_a_call_is_in_the_stream_too(talk):
    message = talk.both("1 <tool", tools=[TOOL], tool_choice="auto")[0]["message"]
    assert message["content"] == "1 <tool" and "tool_calls" not in message


def test_an_answer_with_a_form_has_no_thinking(talk):
    for body in (
        {"tools": [TOOL], "tool_choice": "required"},
        {"structured_outputs": {"choice": ["<think>a</think>b", "c"]}},
    ):
        message = talk.plain(CALL if "tools" in body else "<think>a</think>b", **body)["choices"][0]["message"]
        assert "reasoning_content" not in message
        assert message["content"] == (None if "tools" in body else "<think>a</think>b")


def test_a_draft_is_divided_as_a_whole_and_the_last_one_is_the_answer(talk):
    choices, _ = talk.streamed(ANSWER, diffusing=True)
    drafts = [choice["delta"] for choice in choices if "reasoning_content" in choice["delta"]]
    assert (drafts[-1]["reasoning_content"], drafts[-1]["reasoning"], drafts[-1]["content"]) == (THOUGHT, THOUGHT, SAID)
    assert len(drafts) > 5 and "▒" in drafts[0]["content"]


def test_completions_and_denoising_states_keep_the_text(talk):
    answer = talk.plain(ANSWER, path="/v1/completions", prompt="x")
    assert answer["choices"][0]["text"] == ANSWER
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}
    done = events_of(talk.post(ANSWER, path="/v1/denoise", prompt="x"))[-1][1]
    assert done["text"] == ANSWER and not {"content", "reasoning_content"} & done.keys()


def test_the_end_of_a_chats_denoising_states_has_thinking_apart_too(talk):
    start, *_, end = events_of(talk.post(ANSWER, path="/v1/denoise", messages=QUESTION))
    done = end[1]
    assert (done["text"], done["reasoning_content"], done["content"]) == (ANSWER, THOUGHT, SAID)
    assert done["usage"]["completion_tokens_details"] == {"reasoning_tokens": talk.both(ANSWER)[1]}
    fork = talk.http.post("/v1/denoise", json={"fork": {"id": start[1]["id"], "step": 3}})
    assert events_of(fork)[-1][1]["content"] == SAID


def test_the_official_client_reads_it_and_sends_the_message_back(talk):
    talk.will_say(ANSWER)
    with openai.OpenAI(base_url=f"{talk.http.base_url}/v1", api_key="unused", max_retries=0) as client:
        request = {"model": "tiny", "max_tokens": 96}
        message = client.chat.completions.create(messages=QUESTION, **request).choices[0].message
        assert message.reasoning_content == THOUGHT
        again = [*QUESTION, message, {"role": "user", "content": "And 5?"}]
        assert client.chat.completions.create(messages=again, **request).choices[0].message.content == SAID


def test_a_response_has_thinking_as_an_item_before_the_message(talk):
    for text, kinds, status in (
        (ANSWER, ["reasoning", "message"], "completed"),
        ("It is 19.", ["message"], "completed"),
        ("<think>a", ["reasoning"], "completed"),
        ("", ["message"], "completed"),
        ("<think>" + "so " * 120, ["reasoning"], "incomplete"),
    ):
        body = {"path": "/v1/responses", "input": "12 + 7?", "include": ["message.output_text.logprobs"]}
        answer = talk.plain(text, **body)
        assert ([item["type"] for item in answer["output"]], answer["status"]) == (kinds, status)
        ResponseObject.model_validate(answer)
        reader = ThinkingReader(ThinkingForm())
        said = reader.push(text, is_last=True).said
        texts = {item["type"]: item["content"][0]["text"] for item in answer["output"]}
        if status == "completed":
            assert texts == {kind: reader.thinking if kind == "reasoning" else said for kind in kinds}
        counted = answer["usage"]["output_tokens_details"]["reasoning_tokens"]
        assert (counted > 0) == bool(reader.thinking)
        events = events_of(talk.post(text, stream=True, **body))
        assert [event["sequence_number"] for _, event in events] == list(range(len(events)))
        streamed = events[-1][1]["response"]
        assert without_ids(streamed["output"]) == without_ids(answer["output"]) and streamed["usage"] == answer["usage"]
        done = [event["item"] for name, event in events if name == "response.output_item.done"]
        assert done == streamed["output"]
        for index, item in enumerate(done):
            kind = "output_text" if item["type"] == "message" else "reasoning_text"
            own = [(name, event) for name, event in events if event.get("output_index") == index]
            assert [name for name, _ in own if not name.endswith(".delta")] == [
                "response.output_item.added", "response.content_part.added", f"response.{kind}.done",
                "response.content_part.done", "response.output_item.done",
            ]  # fmt: skip
            deltas = [event["delta"] for name, event in own if name == f"response.{kind}.delta"]
            assert "".join(deltas) == item["content"][0]["text"]


def without_ids(items):
    return [{name: value for name, value in item.items() if name != "id"} for item in items]


def test_the_official_client_streams_a_response_with_thinking_and_sends_it_back(demo):
    with talking(demo, THINKING_TEMPLATE) as talk:
        talk.will_say(ANSWER)
        request = {"model": "tiny", "max_output_tokens": 96}
        with openai.OpenAI(base_url=f"{talk.http.base_url}/v1", api_key="unused", max_retries=0) as client:
            with client.responses.stream(input="12 + 7?", **request) as stream:
                pieces = [event.delta for event in stream if event.type == "response.reasoning_text.delta"]
                answer = stream.get_final_response()
            assert ("".join(pieces), answer.output_text) == (THOUGHT, SAID)
            items = [{"role": "user", "content": "12 + 7?"}, *answer.output]
            again = client.responses.create(input=[*items, {"role": "user", "content": "And 5?"}], **request)
            assert again.output_text == SAID
        sent = [items[0], *(item.model_dump(exclude_unset=True) for item in again.output)]
        answers = [
            talk.http.post("/v1/responses/input_tokens", json={"input": part}).json()
            for part in (sent, [sent[0], sent[2]], sent[:2])
        ]
        counted = [answer["input_tokens"] for answer in answers]
        # The thinking is in the prompt of an answer to be continued, and so is an answer that is all thinking.
        assert counted[0] > counted[1] and counted[0] > counted[2] > counted[0] - counted[1]


def test_include_reasoning_false_is_refused_by_name(talk):
    error = talk.post(ANSWER, include_reasoning=False).json()["error"]
    assert error["param"] == "include_reasoning"


@pytest.mark.parametrize(
    ("turn", "continued", "expected"),
    [
        ({"content": "<think>Hm"}, "m.</think>19", ("m.", "19")),
        ({"content": "<think>Hm</think>It is "}, "<think>19", (None, "<think>19")),
        ({"content": "<thi"}, "nk>Hm.</think>19", ("Hm.", "19")),
        ({"content": "<thi"}, "s> 19", (None, "s> 19")),
        ({"content": "<think>Hm.</th"}, "ink>19", ("", "19")),
        ({"content": "<think>Hm.</th"}, "is></think>19", ("is>", "19")),
        ({"content": "It is ", "reasoning_content": "Hm"}, "<think>19", (None, "<think>19")),
    ],
)
def test_a_continued_turn_goes_on_where_it_stopped(talk, turn, continued, expected):
    messages = [*QUESTION, {"role": "assistant", **turn}]
    place = {"add_generation_prompt": False, "continue_final_message": True}
    message = talk.both(continued, messages=messages, **place)[0]["message"]
    assert (message["reasoning_content"], message["content"]) == expected


def tokens_of(http, *messages):
    return http.post("/tokenize", json={"messages": list(messages)})


def test_the_thinking_of_earlier_turns_reaches_the_template_however_it_is_sent(demo):
    turns = [
        {"content": "19", "reasoning_content": "\nHm\n"},
        {"content": "19", "reasoning": "Hm"},
        {"content": "<think>\nHm\n</think>\n\n19"},
    ]
    with talking(demo, THINKING_TEMPLATE) as talk:
        ids = [tokens_of(talk.http, *QUESTION, {"role": "assistant", **turn}).json()["tokens"] for turn in turns]
        assert ids[0] == ids[1] == ids[2]
        assert "assistant\n<think>\nHm\n</think>\n\n19<|im_end|>" in talk.tokenizer.decode(ids[0])
        for turn, message in (
            ({"role": "user", "content": "x", "reasoning": "a"}, "unless its role is assistant"),
            ({"role": "assistant", "content": "x", "reasoning": "a", "reasoning_content": "b"}, "only one of them"),
        ):
            error = tokens_of(talk.http, *QUESTION, turn).json()["error"]
            assert error["param"] == "messages" and message in error["message"]
        # An answer that is all thinking can be sent back.
        assert tokens_of(talk.http, {"role": "assistant", "content": None, "reasoning": "a"}).status_code == 200


def test_a_template_that_opens_thinking_begins_answers_within_it(demo):
    with talking(demo, THINKING_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}") as talk:
        choice, reasoning_tokens = talk.both("12 + 7 is 19.\n</think>\n\nIt is 19.")
        assert choice["message"]["reasoning_content"] == "12 + 7 is 19.\n"
        assert choice["message"]["content"] == "\n\nIt is 19." and reasoning_tokens > 5
        assert talk.both("so " * 60, max_tokens=20)[0]["message"]["content"] is None


@pytest.mark.parametrize(("parser", "is_apart"), [("auto", False), ("think", True), ("none", False)], ids=str)
def test_a_format_without_thinking_is_left_alone_unless_it_is_asked_for(demo, parser, is_apart):
    with talking(demo, None, reasoning_parser=parser) as talk:
        message = talk.plain(ANSWER)["choices"][0]["message"]
        expected = {"role": "assistant", "content": ANSWER, "refusal": None}
        if is_apart:
            expected |= {"content": SAID, "reasoning_content": THOUGHT, "reasoning": THOUGHT}
        assert message == expected
        history = [*QUESTION, {"role": "assistant", "content": "19", "reasoning_content": "Hm"}, *QUESTION]
        answer = talk.post(ANSWER, messages=history)
        assert answer.status_code == (200 if is_apart else 400)
        if not is_apart:
            error = answer.json()["error"]
            assert error["param"] == "messages" and "messages.1.reasoning_content has 2 characters" in error["message"]
            thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm"}]}
            for more in ({}, {"instructions": "Be brief."}):
                body = {"input": [*QUESTION, thought], **more}
                for route in ("/v1/responses", "/v1/responses/input_tokens"):
                    error = talk.http.post(route, json=body).json()["error"]
                    assert error["param"] == "input" and "thinking in input has 2 characters" in error["message"]


def test_a_template_that_refuses_the_turns_of_a_response_is_said_of_its_input(demo):
    refusing = "{{ raise_exception('no system turn') if messages[0].role == 'system' }}" + THINKING_TEMPLATE
    with talking(demo, refusing) as talk:
        answer = talk.http.post("/v1/responses", json={"input": "Hello", "instructions": "Be brief."})
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "input"
        assert answer.json()["error"]["message"].startswith("input: ")
        system = {"messages": [{"role": "system", "content": "Be brief."}, *QUESTION]}
        assert talk.http.post("/v1/chat/completions", json=system).json()["error"]["param"] == "messages"


def test_the_parser_can_be_turned_off(demo):
    with talking(demo, THINKING_TEMPLATE, reasoning_parser="none") as talk:
        message = talk.plain(ANSWER)["choices"][0]["message"]
        assert message == {"role": "assistant", "content": ANSWER, "refusal": None}


def test_pieces_stream_as_soon_as_they_are_final(talk):
    """No step's pieces come later than the next text that could not be part of a tag."""
    choices, _ = talk.streamed(ANSWER, steps=96, block_length=1)
    pieces = [choice["delta"].get("reasoning_content") or choice["delta"].get("content") or "" for choice in choices]
    reader, expected = ThinkingReader(ThinkingForm()), []
    for token in talk.model.script:
        divided = reader.push(talk.tokenizer.decode([token]))
        expected += [piece for piece in divided if piece]
    assert [piece for piece in pieces if piece] == expected
