"""Client libraries that people use with servers like this one; `make test-clients` runs these tests."""

import pytest

pytestmark = [
    pytest.mark.clients,
    # Warnings that the packages cause themselves.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(autouse=True)
def no_price_list(monkeypatch):
    """litellm downloads this table when it is imported."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_litellm_completes_a_chat_plain_and_streamed(live_server):
    import litellm

    request = {
        "model": "openai/llada-demo",
        "api_base": f"{live_server}/v1",
        "api_key": "unused",
        "messages": QUESTION,
        "max_tokens": 32,
    }
    answer = litellm.completion(**request)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens > 0) == ("stop", True)
    chunks = list(litellm.completion(**request, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.choices[0].message.content


def test_litellm_passes_the_diffusion_fields_on(live_server):
    import litellm

    answer = litellm.completion(
        model="openai/llada-demo",
        api_base=f"{live_server}/v1",
        api_key="unused",
        messages=QUESTION,
        max_tokens=32,
        extra_body={"steps": 8, "remasking": "entropy"},
    )
    assert answer.usage.denoising_steps <= 8
    assert answer.generation_params["remasking"] == "entropy"


def test_langchain_completes_a_chat_plain_and_streamed(live_server):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model="llada-demo", base_url=f"{live_server}/v1", api_key="unused", max_tokens=32)
    answer = chat.invoke([("system", "Answer briefly."), ("human", "What is the capital of France?")])
    assert "Paris" in answer.content
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata["output_tokens"] > 0
    plain = chat.invoke("What is the capital of France?").content
    assert "".join(chunk.content for chunk in chat.stream("What is the capital of France?")) == plain
