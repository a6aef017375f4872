"""The official `inceptionai` package, the client of another denoising language model, against the demo model."""

import inceptionai
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(live_server):
    with inceptionai.Inception(base_url=live_server, api_key="unused", max_retries=0) as client:
        yield client


def chat(client, **settings):
    return client.chat.completions.create(model="llada-demo", messages=QUESTION, max_tokens=32, **settings)


@pytest.mark.parametrize("settings", [{}, {"reasoning_effort": "instant"}, {"realtime": True}], ids=str)
def test_a_chat_is_answered_plain_and_streamed(client, settings):
    answer = chat(client, **settings)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True}, **settings)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert last.choices == []


def test_every_chunk_of_a_diffusing_chat_is_the_whole_draft(client):
    drafts = [chunk.choices[0].delta.content for chunk in chat(client, stream=True, diffusing=True)]
    *earlier, last = [draft for draft in drafts if draft]
    assert last == ANSWER
    assert any("▒" in draft for draft in earlier)


def test_a_gap_is_filled_plain_and_streamed(client):
    gap = {"model": "llada-demo", "prompt": "The capital of France is", "suffix": ".", "max_tokens": 1}
    filled = client.fim.completions.create(**gap, top_k=-1, top_p=1.0)
    assert filled.choices[0].text == " Paris"
    chunks = list(client.fim.completions.create(**gap, stream=True))
    assert "".join(chunk.choices[0].text or "" for chunk in chunks) == " Paris"
    assert chunks[-1].choices[0].finish_reason == "length"


def test_the_model_is_listed_for_every_task(client):
    for models in (client.models.list(), client.models.list_chat(), client.models.list_fim()):
        assert [model.id for model in models.data] == ["llada-demo"]


def test_a_refused_field_is_named(client):
    with pytest.raises(inceptionai.BadRequestError, match="reasoning_summary"):
        chat(client, reasoning_summary=True)
