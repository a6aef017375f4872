"""`/tokenize`, `/detokenize` and `/tokenizer_info`, and the position at which a chat's reply begins."""

import httpx
import jinja2
import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing

from llada_core import DEMO_FOLDER
from llada_core.text.tokenizer import Message, Tokenizer
from tests.server.conftest import serving

CHAT = [{"role": "user", "content": "What is the capital of France?"}]


def test_text_goes_to_ids_and_back(http, demo_tokenizer):
    text = "Once upon a time <|mdm_mask|> ▒"
    answer = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert answer["tokens"] == demo_tokenizer.encode(text)
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 512
    assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text}


def test_token_strings_are_returned_only_when_requested(http):
    assert http.post("/tokenize", json={"prompt": ""}).json()["tokens"] == []
    assert http.post("/tokenize", json={"prompt": "a"}).json()["token_strs"] is None
    pieces = http.post("/tokenize", json={"prompt": "a fox", "return_token_strs": True}).json()["token_strs"]
    assert pieces == ["a", "Ġfox"]


def test_special_tokens_are_added_only_when_requested(demo):
    definition = tokenizers.Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json"))
    first = definition.id_to_token(0)
    definition.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 0)])
    with serving(demo, Tokenizer(definition.to_str())) as url, httpx.Client(base_url=url, timeout=60) as http:
        added = http.post("/tokenize", json={"prompt": "Once"}).json()["tokens"]
        bare = http.post("/tokenize", json={"prompt": "Once", "add_special_tokens": False}).json()["tokens"]
        assert added == [0, *bare]
        # The prompt of a generation gets them; a chat gets none beyond those of the template.
        body = {"prompt": "Once", "max_tokens": 1, "return_token_ids": True}
        assert http.post("/v1/completions", json=body).json()["choices"][0]["prompt_token_ids"] == added
        chat = http.post("/tokenize", json={"messages": CHAT}).json()["tokens"]
        assert chat == Tokenizer(definition.to_str()).encode_chat([Message(**CHAT[0])])


def test_a_conversation_is_tokenized_as_it_is_generated_from(http, demo_tokenizer):
    answer = http.post("/tokenize", json={"messages": CHAT}).json()
    body = {"messages": CHAT, "max_tokens": 4, "return_token_ids": True}
    generated = http.post("/v1/chat/completions", json=body).json()
    assert answer["tokens"] == generated["prompt_token_ids"]
    text = http.post("/detokenize", json={"tokens": answer["tokens"]}).json()["prompt"]
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    bare = http.post("/tokenize", json={"messages": CHAT, "add_generation_prompt": False}).json()["tokens"]
    assert bare == demo_tokenizer.encode_chat([Message(**CHAT[0])], add_generation_prompt=False)
    assert answer["tokens"][: len(bare)] == bare


def test_a_reply_goes_on_where_the_last_message_ends(http):
    begun = [*CHAT, {"role": "assistant", "content": "The capital of"}]
    body = {"messages": begun, "add_generation_prompt": False, "continue_final_message": True, "max_tokens": 16}
    text = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert text.strip().startswith("France is Paris")
    ids = http.post("/tokenize", json={name: body[name] for name in body if name != "max_tokens"}).json()["tokens"]
    rendered = http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
    assert rendered.endswith("assistant<|end_header_id|>\n\nThe capital of")


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        ("/tokenize", {}, "prompt", "exactly one"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "messages", "exactly one"),
        ("/tokenize", {"prompt": [1]}, "prompt", "string"),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": False}, "add_generation_prompt", "without messages"),
        ("/tokenize", {"messages": CHAT, "add_special_tokens": True}, "add_special_tokens", "false with messages"),
        ("/tokenize", {"messages": CHAT, "continue_final_message": True}, "continue_final_message", "false unless"),
        ("/v1/chat/completions", {"messages": CHAT, "continue_final_message": True}, "continue_final_message", "false"),
        ("/detokenize", {"tokens": [99999]}, "tokens", "from 0 to"),
        ("/detokenize", {"tokens": "abc"}, "tokens", "tokens is 'abc'"),
        ("/detokenize", {"tokens": [1], "text": "x"}, "text", "not a field"),
    ],
    ids=str,
)
def test_bad_input_is_refused_by_name(http, route, body, param, message):
    answer = http.post(route, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert message in answer.json()["error"]["message"]


def test_without_a_tokenizer_both_routes_are_refused(tiny_client):
    for route, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
        answer = tiny_client.post(route, json=body)
        assert answer.status_code == 400
        assert "no tokenizer" in answer.json()["error"]["message"]
    assert tiny_client.post("/tokenize", json={"prompt": "a", "model": "other"}).status_code == 404


def test_the_tokenizer_describes_itself(http):
    info = http.get("/tokenizer_info").json()
    assert info["tokenizer_class"] == "PreTrainedTokenizerFast"
    tokens = {name: info[f"{name}_token"] for name in ("bos", "eos", "mask", "eot")}
    assert tokens == {
        "bos": "<|startoftext|>",
        "eos": "<|endoftext|>",
        "mask": "<|mdm_mask|>",
        "eot": "<|eot_id|>",
    }
    assert set(tokens.values()) < set(info["added_tokens"].values())
    assert info["model_max_length"] == http.get("/v1/models").json()["data"][0]["max_model_len"]


def test_the_chat_template_that_it_tells_renders_what_the_server_encodes(http, demo_tokenizer):
    template = jinja2.Template(http.get("/tokenizer_info").json()["chat_template"])
    text = template.render(messages=CHAT, bos_token="<|startoftext|>", add_generation_prompt=True)
    assert demo_tokenizer.encode(text) == http.post("/tokenize", json={"messages": CHAT}).json()["tokens"]


def test_a_model_without_a_tokenizer_has_none_to_describe(tiny):
    with serving(tiny) as url:
        assert httpx.get(f"{url}/tokenizer_info").status_code == 400
