"""Chat formats given as Jinja templates, against the built-in one, which is also written as a template."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.errors import InvalidParameterError
from llada_core.text.chat_template import ChatTemplate, Part
from llada_core.text.tokenizer import CHAT_TEMPLATE, Message

SETTINGS = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True, "continue_final_message": False}
USER = [Message("user", " Hi ")]


@pytest.fixture(scope="module")
def templated():
    return load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(CHAT_TEMPLATE))


texts = st.text(max_size=12) | st.sampled_from(["<|eot_id|>", "{{ 1 }}", "<|start_header_id|>user", " \n x \n"])


@settings(max_examples=60, deadline=None)
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
    ],
)
def test_a_template_that_refuses_says_why(source, more, message):
    with pytest.raises(InvalidParameterError, match=message):
        ChatTemplate(source).render(USER, **SETTINGS | more)


def test_what_is_no_template_is_refused_with_its_line():
    with pytest.raises(ValueError, match="chat template, line 2"):
        ChatTemplate("a\n{% for %}")
