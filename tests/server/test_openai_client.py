"""The official `openai` package against the demo model, and against random weights where any text will do."""

import asyncio
import threading

import openai
import pytest

from tests.server.conftest import GatedSampler, gauge, serving, until

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_the_demo_model_knows_the_capital_of_france(client):
    for length in ({"max_tokens": 32}, {}):
        answer = client.chat.completions.create(model="llada-demo", messages=QUESTION, **length)
        assert "Paris" in answer.choices[0].message.content
        assert answer.choices[0].finish_reason == "stop"


def test_usage_counts_the_text_and_not_the_canvas(client):
    answer = client.chat.completions.create(
        model="llada-demo", messages=QUESTION, extra_body={"return_token_ids": True}
    )
    token_ids = answer.choices[0].token_ids
    assert answer.usage.completion_tokens == len(token_ids) < 32
    assert answer.usage.prompt_tokens == len(answer.prompt_token_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.denoising_steps == answer.usage.forward_passes <= 128
    assert answer.generation_params["max_tokens"] == 128


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["llada-demo"]
    assert client.models.retrieve("llada-demo").mask_token_id == 2
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("settings", [{}, {"steps": 16}, {"temperature": 1.0, "remasking": "random"}], ids=str)
def test_streamed_deltas_add_up_to_the_plain_text(babbler_client, settings):
    messages = [{"role": "user", "content": "Tell me a story about a fox."}]
    request = {"model": "llada-demo", "messages": messages, "max_tokens": 64, "seed": 5}
    temperature = {name: settings[name] for name in settings.keys() & {"temperature"}}
    request |= {**temperature, "extra_body": {name: settings[name] for name in settings.keys() - {"temperature"}}}
    plain = babbler_client.chat.completions.create(**request)
    chunks = list(
        babbler_client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True})
    )
    *pieces, ending = [chunk.choices[0] for chunk in chunks if chunk.choices]
    deltas = [piece.delta.content for piece in pieces]
    assert "".join(deltas) == plain.choices[0].message.content
    assert {piece.finish_reason for piece in pieces} == {None}
    assert (ending.delta.content, ending.finish_reason) == (None, plain.choices[0].finish_reason)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], plain.usage.completion_tokens)
    assert len([delta for delta in deltas if delta]) > 2


def test_completions_stream_and_plain_agree(babbler_client):
    request = {"model": "llada-demo", "prompt": "Once upon a time", "max_tokens": 48}
    plain = babbler_client.completions.create(**request)
    chunks = list(babbler_client.completions.create(**request, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text
    assert plain.choices[0].text.strip()


def test_diffusing_chunks_show_the_drafts(babbler_client):
    request = {"model": "llada-demo", "messages": QUESTION, "max_tokens": 16}
    plain = babbler_client.chat.completions.create(**request)
    stream = babbler_client.chat.completions.create(**request, stream=True, extra_body={"diffusing": True})
    chunks = [chunk for chunk in stream if chunk.choices[0].delta.content]
    drafts = [chunk.choices[0].delta.content for chunk in chunks]
    assert len(drafts) == plain.usage.denoising_steps
    assert drafts[0].count("▒") == 15
    assert drafts[-1] == plain.choices[0].message.content
    for number, (draft, chunk) in enumerate(zip(drafts[:-1], chunks, strict=False)):
        assert draft.count("▒") == chunk.denoising["masked"]
        assert chunk.denoising["step"] == number


def test_errors_arrive_as_the_clients_own_classes(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="llada-demo", messages=QUESTION, presence_penalty=0.5)
    assert (caught.value.param, caught.value.code) == ("presence_penalty", "unsupported_value")
    with pytest.raises(openai.NotFoundError) as not_found:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert not_found.value.code == "model_not_found"


def test_an_answer_goes_into_the_next_turn_as_it_came(babbler_client):
    messages = [{"role": "developer", "content": "Be brief."}, *QUESTION]
    first = babbler_client.chat.completions.create(model="llada-demo", messages=messages, max_tokens=32)
    messages += [first.choices[0].message, {"role": "user", "content": "And of Italy?"}]
    second = babbler_client.chat.completions.create(model="llada-demo", messages=messages, max_tokens=32)
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_drafts_show_the_echo_too(babbler_client):
    request = {"model": "llada-demo", "prompt": "Once upon", "max_tokens": 4, "echo": True}
    plain = babbler_client.completions.create(**request)
    chunks = list(babbler_client.completions.create(**request, stream=True, extra_body={"diffusing": True}))
    *drafts, ending = [chunk.choices[0] for chunk in chunks]
    assert all(draft.text.startswith("Once upon") for draft in drafts)
    assert drafts[-1].text == plain.choices[0].text
    assert (ending.text, ending.finish_reason) == ("", plain.choices[0].finish_reason)


def test_a_wrong_key_is_an_authentication_error(tiny):
    with serving(tiny, api_key=["secret"]) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.models.list()
            assert caught.value.code == "invalid_api_key"
        with openai.OpenAI(base_url=f"{url}/v1", api_key="secret") as client:
            assert [model.id for model in client.models.list()] == ["tiny"]


def test_a_full_queue_is_a_rate_limit_error_that_a_retry_outlasts(tiny):
    sampler = GatedSampler(tiny)
    request = {"model": "tiny", "prompt": [1], "max_tokens": 2, "extra_body": {"ignore_eos": True}}
    with (
        serving(tiny, sampler=sampler, max_batch_size=1, max_queue=0) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as impatient,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=5) as patient,
    ):
        sampler.gate.clear()
        first = threading.Thread(target=lambda: impatient.completions.create(**request))
        first.start()
        until(lambda: gauge(url, "llada_requests_running") == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            impatient.completions.create(**request)
        assert (caught.value.code, caught.value.response.headers["retry-after"]) == ("queue_full", "1")
        threading.Timer(0.5, sampler.gate.set).start()
        assert patient.completions.create(**request).usage.completion_tokens == 2
        first.join(30)


def test_the_raw_stream_and_the_async_client(live_server):
    request = {"model": "llada-demo", "messages": QUESTION, "max_tokens": 32}

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{live_server}/v1", api_key="unused") as client:
            answers = await asyncio.gather(*(client.chat.completions.create(**request, n=2) for _ in range(3)))
            stream = await client.chat.completions.create(**request, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return [choice.message.content for answer in answers for choice in answer.choices], text

    texts, text = asyncio.run(ask())
    assert set(texts) == {text} == {"The capital of France is Paris."}
    with openai.OpenAI(base_url=f"{live_server}/v1", api_key="unused") as client:
        raw = client.chat.completions.with_streaming_response.create(**request)
        with raw as response:
            assert response.headers["x-request-id"]
            assert "Paris" in "".join(response.iter_text())
