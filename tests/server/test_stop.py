"""Stop strings and suffixes through the server."""

import json

import pytest

STORY = {"prompt": "Once upon a time", "max_tokens": 48}


def complete(http, **body):
    answer = http.post("/v1/completions", json={**STORY, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def streamed(http, **body):
    text = http.post("/v1/completions", json={**STORY, **body, "stream": True}).text
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line)["choices"][0] for line in lines[:-1]]


def test_the_text_ends_before_the_first_stop_string(http):
    whole = complete(http)["choices"][0]["text"]
    # One across a token boundary, one in the middle of a token.
    for start, size in ((9, 7), (14, 2), (20, 9)):
        stop = whole[start : start + size]
        expected = whole[: whole.index(stop)]
        answer = complete(http, stop=["never there", stop], return_token_ids=True)
        choice = answer["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (expected, "stop")
        assert answer["usage"]["completion_tokens"] == len(choice["token_ids"])
        assert expected.startswith(http.post("/detokenize", json={"tokens": choice["token_ids"]}).json()["prompt"])
        chunks = streamed(http, stop=stop)
        assert "".join(chunk["text"] for chunk in chunks) == expected
        assert chunks[-1]["finish_reason"] == "stop"


def test_generation_ends_with_the_text(http):
    whole = complete(http, ignore_eos=True)
    text = whole["choices"][0]["text"]
    stopped = complete(http, ignore_eos=True, stop=text[5:12])
    assert stopped["usage"]["denoising_steps"] < whole["usage"]["denoising_steps"]


def test_a_stop_token_id_ends_the_text_before_it(http):
    whole = complete(http, return_token_ids=True)["choices"][0]
    token = whole["token_ids"][5]
    first = whole["token_ids"].index(token)
    stopped = complete(http, stop_token_ids=[token], return_token_ids=True)["choices"][0]
    assert (stopped["token_ids"], stopped["finish_reason"]) == (whole["token_ids"][:first], "stop")


def test_chats_stop_too(http):
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "stop": " is"}
    choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The capital of France", "stop")


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/fim/completions"])
def test_a_suffix_follows_a_gap_that_is_filled(http, route):
    body = {"prompt": "Once upon a time there was a big ", "suffix": " named Tom.", "max_tokens": 3}
    answer = http.post(route, json={**body, "return_token_ids": True}).json()
    choice = answer["choices"][0]
    assert len(choice["token_ids"]) == 3
    assert not set(choice["token_ids"]) & {0, 1, 2}
    counted = [
        http.post("/tokenize", json={"prompt": text}).json()["count"] for text in (body["prompt"], body["suffix"])
    ]
    assert answer["usage"]["prompt_tokens"] == sum(counted)
    assert answer["usage"]["completion_tokens"] == 3
    # The suffix determines the text before it.
    other = http.post(route, json={**body, "suffix": " of France is Paris.", "return_token_ids": True}).json()
    assert other["choices"][0]["token_ids"] != choice["token_ids"]


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        ("/v1/completions", {"prompt": "a", "stop": ""}, "stop", "must not be empty"),
        ("/v1/completions", {"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ("/v1/completions", {"prompt": "a", "stop": 3}, "stop", "stop is 3"),
        ("/v1/completions", {"prompt": "a", "stop": "x" * 1025}, "stop", "at most 1024 characters; it has 1025"),
        ("/v1/completions", {"prompt": "a", "stop": ["b", "x" * 2000]}, "stop", "at most 1024 characters"),
        ("/v1/denoise", {"canvas": ["a", {"mask": 1}], "stop": "x"}, "stop", "infilling"),
        ("/v1/fim/completions", {"prompt": "a"}, "suffix", "required"),
        ("/v1/completions", {"prompt": "a", "suffix": "b", "max_tokens": 600}, "max_tokens", "the suffix"),
        (
            "/v1/completions",
            {"prompt": "a", "suffix": "b", "method": "semi_autoregressive_origin"},
            "method",
            "with a suffix",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "suffix": "b"}, "suffix", "absent"),
    ],
    ids=str,
)
def test_bad_input_is_refused_by_name(http, route, body, param, message):
    answer = http.post(route, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]


def test_stop_strings_without_a_tokenizer_are_refused(tiny_client):
    answer = tiny_client.post("/v1/completions", json={"prompt": [1], "stop": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stop")
