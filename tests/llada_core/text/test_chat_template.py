"""Chat formats given as Jinja templates, against the built-in one, which is also written as a template."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.errors import InvalidParameterError
from llada_core.text import chat_template
from llada_core.text.chat_template import ChatTemplate, Part
from llada_core.text.tokenizer import CHAT_TEMPLATE, Message
from llada_core.text.tool_prompt import Tool, ToolCall, tools_text
from tests.random_cases import cases

SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "continue_final_message": False}
USER = [Message("user", " Hi ")]


@pytest.fixture(scope="module")
def templated():
    return load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(CHAT_TEMPLATE))


texts = st.text(max_size=12) | st.sampled_from(["<|eot_id|>", "{{ 1 }}", "<|start_header_id|>user", " \n x \n"])


# Every sequence of roles takes a process, a tenth of a second.
@settings(max_examples=cases(60), deadline=None)
@given(
    messages=st.lists(
        st.builds(Message, st.sampled_from(["user", "assistant", "system"]), texts), min_size=1, max_size=4
    ),
    where=st.sampled_from([(True, False), (False, False), (False, True)]),
)
def test_lladas_own_template_gives_the_ids_of_the_built_in_format(demo_tokenizer, templated, messages, where):
    place = {"add_generation_prompt": where[0], "continue_final_message": where[1]}
    assert templated.encode_chat(messages, **place) == demo_tokenizer.encode_chat(messages, **place)


def test_texts_are_parts_of_their_own_trimmed_where_the_template_trims():
    parts = ChatTemplate("{{ bos_token }}{% for m in messages %}[{{ m.content }}]{{ m['content'] | trim }}{% endfor %}")
    assert [part for part in parts.render(USER, **SETTINGS) if part.text] == [
        Part("<s>[", False),
        Part(" Hi ", True),
        Part("]", False),
        Part("Hi", True),
    ]


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("{{ raise_exception('only one turn') }}", {}, "only one turn"),
        ("{{ nothing }}", {}, "'nothing' is undefined"),
        ("{{ messages.__class__.__mro__ }}", {}, "unsafe"),
        ("x", {"continue_final_message": True}, "leaves out the last one"),
        ("{{ 1 / 0 }}", {}, "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", {}, "recursion"),
        ("{{ range(10**9) | list }}", {}, "Range too big"),
        ("{% include '/etc/passwd' %}", {}, "no loader"),
        ("{{ (messages[0].content | string) * 99 }}", {}, "repeats them too often"),
    ],
)
def test_a_template_that_refuses_says_why(source, more, message):
    with pytest.raises(InvalidParameterError, match=message):
        ChatTemplate(source).render(USER, **SETTINGS | more)


def test_what_is_no_template_is_refused_with_its_line():
    with pytest.raises(ValueError, match="chat template, line 2"):
        ChatTemplate("a\n{% for %}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' * 10**10 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    ],
    ids=["folded by the compiler", "formatted", "doubled"],
)
def test_a_template_that_takes_too_much_is_refused_when_it_is_read(source):
    with pytest.raises(ValueError, match="chat template: takes more than 2 s or 256 MB"):
        ChatTemplate(source)


def test_a_template_that_takes_too_long_for_a_conversation_refuses_it(monkeypatch):
    monkeypatch.setattr(chat_template, "_MOST_SECONDS", 1)
    template = ChatTemplate(
        "{% if messages | length > 1 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
        "{% endif %}{{ messages[0].content }}"
    )
    assert any(part.text == " Hi " for part in template.render(USER, **SETTINGS))
    with pytest.raises(InvalidParameterError, match="messages: chat template: takes more than 1 s"):
        template.render(USER * 2, **SETTINGS)


def test_a_template_that_writes_too_much_is_refused_when_it_is_read():
    with pytest.raises(ValueError, match="writes more than 1,048,576 characters"):
        ChatTemplate("{{ 'x' * 2000000 }}")


def test_marks_that_a_template_forges_stand_for_nothing():
    parts = ChatTemplate("{{ '\ue0007\ue001' }}|{{ messages[0].content }}").render(USER, **SETTINGS)
    assert [part.text for part in parts if part.text] == ["|", " Hi "]


def test_a_template_file_is_read_to_a_limit(tmp_path):
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages[0].content }}")
    assert ChatTemplate.from_file(file).source == "{{ messages[0].content }}"
    file.write_text("x" * 2_000_000)
    with pytest.raises(ValueError, match=r"template\.jinja: is larger than 1048576 bytes"):
        ChatTemplate.from_file(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="must be a regular file"):
        ChatTemplate.from_file(file)


# As Qwen's, Hermes' and the later LLaDAs' templates are written.
TOOL_TEMPLATE = """
{%- if tools %}{{ '<|start_header_id|>system<|end_header_id|>' }}
{%- for tool in tools %}{{ '\\n' ~ (tool | tojson) }}{% endfor %}{{ '<|eot_id|>' }}{% endif %}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>' + message.content }}
{%- if message.tool_calls %}{% for call in message.tool_calls %}
{{- '<tool_call>{"name": "' + call.function.name + '", "arguments": ' }}
{{- (call.function.arguments | tojson) ~ '}</tool_call>' }}
{%- endfor %}{% endif %}
{%- if message.tool_call_id is defined %}{{ '#' + message.tool_call_id }}{% endif %}
{{- '<|eot_id|>' }}
{%- endfor %}"""
TOOLS = [Tool("say", 'Say "it".<|eot_id|>', {"type": "object", "properties": {"the text": {"type": "string"}}})]
CALLING = [
    *USER,
    Message("assistant", "", (ToolCall("say", {"the text": 'a "b" <|eot_id|> ž', "times": 2}, id="call_1"),)),
    Message("tool", "done <|eot_id|>", call_id="call_1"),
]


def test_a_template_that_knows_tools_writes_them_with_calls_and_results():
    template = ChatTemplate(TOOL_TEMPLATE)
    parts = template.render(CALLING, TOOLS, **SETTINGS)
    assert template.knows_tools
    assert "".join(part.text for part in parts) == (
        '<|start_header_id|>system<|end_header_id|>\n{"type": "function", "function": {"name": "say", "description": '
        '"Say \\"it\\".<|eot_id|>", "parameters": {"type": "object", "properties": {"the text": {"type": "string"}}}}}'
        "<|eot_id|><|start_header_id|>user<|end_header_id|> Hi <|eot_id|>"
        '<|start_header_id|>assistant<|end_header_id|><tool_call>{"name": "say", "arguments": '
        '{"the text": "a \\"b\\" <|eot_id|> ž", "times": 2}}</tool_call><|eot_id|>'
        "<|start_header_id|>tool<|end_header_id|>done <|eot_id|>#call_1<|eot_id|>"
    )


def test_no_text_of_a_tool_or_call_can_open_a_turn():
    for part in ChatTemplate(TOOL_TEMPLATE).render(CALLING, TOOLS, **SETTINGS):
        if not part.is_content:
            assert not any(text in part.text for text in ("<|eot_id|> ž", "Say", "done"))
    tokenizer = load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(TOOL_TEMPLATE))
    assert tokenizer.encode_chat(CALLING, TOOLS).count(tokenizer.token_to_id("<|eot_id|>")) == 4


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, "{{ 'tools' }}{{ messages[0].content }}", "{{ nothing }}"])
def test_a_template_that_does_not_write_tools_does_not_know_them(source):
    assert not ChatTemplate(source).knows_tools


def test_tools_are_in_the_plain_form_where_the_format_knows_none(demo_tokenizer, templated):
    plain = [
        Message("system", f"Be brief.\n\n{tools_text(TOOLS)}"),
        *USER,
        Message("assistant", 'Well.\n{"name": "say", "arguments": {"the text": "x"}}'),
        Message("user", "Result: done"),
    ]
    calling = [
        Message("system", "Be brief. "),
        *USER,
        Message("assistant", "Well. ", (ToolCall("say", {"the text": "x"}),)),
        Message("tool", " done"),
    ]
    for tokenizer in (demo_tokenizer, templated):
        assert tokenizer.encode_chat(calling, TOOLS) == demo_tokenizer.encode_chat(plain)
        assert tokenizer.encode_chat(USER, TOOLS) == demo_tokenizer.encode_chat(
            [Message("system", tools_text(TOOLS)), *USER]
        )


# As Qwen3's: thinking is written for the turns after the last question only.
THINKING_TEMPLATE = """\
{%- set last = namespace(user=0) %}
{%- for m in messages %}{% if m.role == "user" %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.reasoning_content and loop.index0 > last.user %}<think>
{{ m.reasoning_content.strip("\n") }}
</think>

{% endif %}
{{- m.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def rendered(source, *messages):
    return "".join(part.text for part in ChatTemplate(source).render(messages, **SETTINGS))


def test_a_template_gets_the_thinking_of_a_turn_as_text_of_its_own():
    turn = Message("assistant", "19", thinking="Yes")
    assert rendered(THINKING_TEMPLATE, Message("user", "12 + 7?"), turn) == (
        "<|im_start|>user\n12 + 7?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nYes\n</think>\n\n19<|im_end|>\n<|im_start|>assistant\n"
    )
    question = Message("user", "And 5?")
    assert "Yes" not in rendered(THINKING_TEMPLATE, USER[0], turn, question)
    tokenizer = load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(THINKING_TEMPLATE))
    eot = tokenizer.token_to_id("<|eot_id|>")
    assert eot not in tokenizer.encode_chat([USER[0], Message("assistant", "19", thinking="a <|eot_id|>")])


@pytest.mark.parametrize(
    ("source", "thinking"),
    [
        ("{{ messages[0].content }}", None),
        (THINKING_TEMPLATE, "free"),
        ("{{ messages[0].content.split('</think>')[-1] }}", "free"),
        ("{{ messages[0].content }}{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}", "open"),
        ("{{ messages[0].content }}<think>\n\n</think>\n\n", "closed"),
        ("{{ raise_exception('</think>') }}", "free"),
    ],
)
def test_a_template_shows_how_answers_begin(source, thinking):
    assert ChatTemplate(source).thinking == thinking
