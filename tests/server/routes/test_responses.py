"""`/v1/responses` with the official `openai` package, sync and async."""

import asyncio

import httpx
import openai
import pytest

QUESTION = "What is the capital of France?"


def test_text_in_text_out(client):
    response = client.responses.create(model="llada-demo", input=QUESTION)
    assert response.output_text == "The capital of France is Paris."
    assert (response.status, response.error, response.store) == ("completed", None, False)
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    chat = client.chat.completions.create(model="llada-demo", messages=[{"role": "user", "content": QUESTION}])
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (
        response.usage.input_tokens,
        response.usage.output_tokens,
    )


def test_an_answer_can_be_sent_back_as_it_came(babbler_client):
    first = babbler_client.responses.create(model="llada-demo", input=QUESTION)
    turns = [
        {"role": "user", "content": QUESTION},
        *[item.model_dump(exclude_none=True) for item in first.output],
        {"role": "user", "content": [{"type": "input_text", "text": "And of Italy?"}]},
    ]
    second = babbler_client.responses.create(model="llada-demo", input=turns, instructions="Answer.")
    chat = babbler_client.chat.completions.create(
        model="llada-demo",
        messages=[
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And of Italy?"},
        ],
    )
    assert second.output_text == chat.choices[0].message.content


def test_an_answer_that_ends_with_the_canvas_is_incomplete(client):
    response = client.responses.create(
        model="llada-demo", input=QUESTION, max_output_tokens=4, extra_body={"ignore_eos": True}
    )
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.max_output_tokens == response.usage.output_tokens == 4


def test_typed_events_tell_the_whole_story(babbler_client):
    plain = babbler_client.responses.create(
        model="llada-demo", input="Tell me a story about a fox.", max_output_tokens=64
    )
    events = list(
        babbler_client.responses.create(
            model="llada-demo", input="Tell me a story about a fox.", max_output_tokens=64, stream=True
        )
    )
    types = [event.type for event in events]
    assert types[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert types[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        f"response.{plain.status}",
    ]
    assert set(types[4:-4]) == {"response.output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == plain.output_text
    final = events[-1].response
    assert (final.output_text, final.usage) == (plain.output_text, plain.usage)
    assert events[0].response.status == "in_progress"


def test_the_streaming_helper_and_the_async_client(live_server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{live_server}/v1", api_key="unused") as client:
            async with client.responses.stream(model="llada-demo", input=QUESTION) as stream:
                async for _ in stream:
                    pass
                final = await stream.get_final_response()
            response = await client.responses.create(model="llada-demo", input=QUESTION)
            return final.output_text, response.output_text

    assert asyncio.run(ask()) == ("The capital of France is Paris.",) * 2


def test_diffusion_fields_work_here_too(client):
    response = client.responses.create(
        model="llada-demo", input=QUESTION, max_output_tokens=16, extra_body={"steps": 4, "block_length": 16}
    )
    assert response.usage.denoising_steps <= 4
    assert response.generation_params["steps"] == 4


@pytest.mark.parametrize("top_logprobs", [0, 3])
def test_log_probabilities_are_those_of_the_chat_and_a_stream_has_the_same(babbler_client, top_logprobs):
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": top_logprobs}
    plain = babbler_client.responses.create(model="llada-demo", input=QUESTION, **asked)
    (part,) = plain.output[0].content
    chat = babbler_client.chat.completions.create(
        model="llada-demo",
        messages=[{"role": "user", "content": QUESTION}],
        logprobs=True,
        top_logprobs=top_logprobs,
    )
    expected = [entry.model_dump() for entry in chat.choices[0].logprobs.content]
    assert [entry.model_dump() for entry in part.logprobs] == expected
    assert "".join(entry.token for entry in part.logprobs) == plain.output_text
    assert all(len(entry.top_logprobs) == top_logprobs for entry in part.logprobs)
    events = list(babbler_client.responses.create(model="llada-demo", input=QUESTION, stream=True, **asked))
    deltas = [entry for event in events if event.type == "response.output_text.delta" for entry in event.logprobs]
    assert [(entry.token, entry.logprob) for entry in deltas] == [(e["token"], e["logprob"]) for e in expected]
    assert [entry.model_dump() for entry in events[-1].response.output[0].content[0].logprobs] == expected


def test_an_answer_with_log_probabilities_can_be_sent_back(babbler_client):
    first = babbler_client.responses.create(
        model="llada-demo", input=QUESTION, include=["message.output_text.logprobs"]
    )
    turns = [{"role": "user", "content": QUESTION}, first.output[0].model_dump(), {"role": "user", "content": "And?"}]
    assert babbler_client.responses.create(model="llada-demo", input=turns, max_output_tokens=8).output_text


@pytest.mark.parametrize(
    "fields",
    [
        {"input": QUESTION},
        {"input": QUESTION, "instructions": "Be brief."},
        {"input": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ],
    ids=str,
)
def test_input_tokens_are_counted_without_a_generation(client, live_server, fields):
    counted = client.responses.input_tokens.count(model="llada-demo", **fields)
    assert counted.object == "response.input_tokens"
    answer = client.responses.create(model="llada-demo", max_output_tokens=1, **fields)
    assert counted.input_tokens == answer.usage.input_tokens


def test_input_tokens_of_another_model_or_without_input_are_refused(live_server):
    for body, status in (({"model": "other", "input": "x"}, 404), ({"input": ""}, 400), ({}, 400)):
        assert httpx.post(f"{live_server}/v1/responses/input_tokens", json=body).status_code == status


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"previous_response_id": "resp-1"}, "previous_response_id", "must be absent"),
        ({"store": True}, "store", "store is True; it must be False"),
        ({"tools": [{"type": "web_search"}]}, "tools", "does not support"),
        ({"text": {"format": {"type": "grammar"}}}, "text", "'json_schema'"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "must be there"),
        ({"reasoning": {"summary": "auto"}}, "reasoning", "must be absent"),
        ({"include": ["reasoning.encrypted_content"]}, "include", "message.output_text.logprobs"),
        ({"include": "message.output_text.logprobs"}, "include", "list"),
        ({"top_logprobs": 2}, "top_logprobs", "must be absent unless include"),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"input": []}, "input", "at least 1"),
        ({"input": ""}, "input", "must not be empty"),
        ({"input": [{"type": "reasoning"}]}, "input", "only empty thinking"),
        ({"input": [{"type": "reasoning", "content": []}] * 2, "instructions": "x"}, "input", "only empty thinking"),
        (
            {"input": [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": ""}]}]},
            "input",
            "only empty thinking",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input", "input_text"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input", "role is 'robot'"),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1"),
        ({"max_output_tokens": 4, "max_tokens": 5}, "max_output_tokens", "beside max_tokens"),
        ({"messages": []}, "messages", "not a field"),
    ],
    ids=str,
)
def test_bad_input_is_refused_by_name(live_server, fields, param, message):
    answer = httpx.post(f"{live_server}/v1/responses", json={"input": QUESTION, **fields})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]
