"""A model that answers with a given text, in some order within each block, and a server that talks with it."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import torch
from torch import Tensor

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.model.interface import MaskPredictor
from llada_core.model.packed import PackedTokens, Rows
from llada_core.model.shape import ModelShape
from llada_core.text.chat_template import ChatTemplate
from llada_core.text.special_tokens import SpecialTokens
from llada_core.text.tokenizer import Tokenizer
from tests.server.conftest import serving

QUESTION = [{"role": "user", "content": "What is <think> 12 + 7?"}]
_VOCAB_SIZE = 3200


class ScriptedModel:
    """Predicts the same answer in every canvas, without caches; EOS follows it.

    Attributes:
        script: the answer's ids.
        gen_length: positions of the response, which lies at the end of every canvas.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    shape = ModelShape(
        num_layers=1, num_key_value_heads=1, head_dim=4, vocab_size=_VOCAB_SIZE, max_sequence_length=1024
    )

    def __init__(self, special_tokens: SpecialTokens) -> None:
        self.special_tokens = special_tokens
        self.script: Sequence[int] = ()
        self.gen_length = 0

    def hidden_states(self, packed: PackedTokens, rows: Rows | None = None) -> Tensor:
        """The id that each row predicts, and how sure the model is of it."""
        starts = torch.tensor(packed.lengths) - self.gen_length
        places_T = packed.positions() - torch.repeat_interleave(starts, torch.tensor(packed.lengths))
        padded = torch.tensor([*self.script, self.special_tokens.eos_id])
        ids_T = padded[places_T.clamp(0, len(self.script))]
        hidden_TE = torch.stack((ids_T, 10 + places_T * 7919 % 13), dim=1).float()
        return hidden_TE if rows is None else hidden_TE[rows.index_R]

    def head(self, hidden_RE: Tensor) -> Tensor:
        logits_RV = torch.zeros(len(hidden_RE), _VOCAB_SIZE)
        return logits_RV.scatter_(1, hidden_RE[:, :1].long(), hidden_RE[:, 1:])


class Talk:
    """A server whose model says what it is told to."""

    def __init__(self, http: httpx.Client, model: ScriptedModel, tokenizer: Tokenizer) -> None:
        self.http, self.model, self.tokenizer = http, model, tokenizer

    def will_say(self, text: str, *, max_tokens: int = 96) -> None:
        """Let the model say this in responses of so many positions."""
        self.model.script, self.model.gen_length = self.tokenizer.encode_plain(text), max_tokens

    def post(
        self, text: str, *, path: str = "/v1/chat/completions", max_tokens: int = 96, **body: Any
    ) -> httpx.Response:
        self.will_say(text, max_tokens=max_tokens)
        if path == "/v1/chat/completions":
            body = {"messages": QUESTION, **body}
        return self.http.post(path, json={"max_tokens": max_tokens, **body})

    def plain(self, text: str, **body: Any) -> Any:
        answer = self.post(text, **body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def streamed(self, text: str, **body: Any) -> tuple[list[Any], list[Any]]:
        """The choice's deltas, one by one, and the chunks."""
        lines = self.post(text, stream=True, **body).text.splitlines()
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        return [chunk["choices"][0] for chunk in chunks if chunk["choices"]], chunks

    def both(self, text: str, **body: Any) -> tuple[Any, int]:
        """The plain answer's choice, after comparing it with the streamed one, and its tokens of thinking."""
        answer = self.plain(text, **body)
        choices, chunks = self.streamed(text, stream_options={"include_usage": True}, **body)
        message = answer["choices"][0]["message"]
        for name in ("reasoning_content", "reasoning", "content"):
            pieces = [choice["delta"].get(name) or "" for choice in choices]
            assert "".join(pieces) == (message.get(name) or ""), name
        assert choices[-1]["finish_reason"] == answer["choices"][0]["finish_reason"]
        assert chunks[-1]["usage"] == answer["usage"]
        return answer["choices"][0], answer["usage"]["completion_tokens_details"]["reasoning_tokens"]


@contextmanager
def talking(demo: MaskPredictor, template: str | None, **settings: Any) -> Iterator[Talk]:
    """A server with the demo's tokenizer and a chat template, or None for LLaDA's own format."""
    model = ScriptedModel(demo.special_tokens)
    tokenizer = load_tokenizer(DEMO_FOLDER, chat_template=None if template is None else ChatTemplate(template))
    with serving(model, tokenizer, **settings) as url, httpx.Client(base_url=url, timeout=30) as http:
        yield Talk(http, model, tokenizer)
