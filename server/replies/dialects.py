"""The differences between OpenAI's two completion endpoints."""

from collections.abc import Sequence
from typing import Any, Protocol

from server.replies.logprobs import ScoredToken, TokenNames, chat_logprobs, completion_logprobs


class Dialect(Protocol):
    """The parts of an answer that have a shape of their own on each endpoint.

    Attributes:
        has_one_prompt: vLLM puts `prompt_token_ids` on the whole chat answer, but on every choice of a completion.
    """

    id_prefix: str
    object: str
    chunk_object: str
    has_one_prompt: bool

    def content(self, text: str) -> dict[str, Any]:
        """The part of a choice that holds the whole text."""

    def chunk_content(self, text: str) -> dict[str, Any]:
        """The part of a chunk's choice that holds a piece of text."""

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        """The log-probabilities of a choice or chunk."""

    def opening(self) -> dict[str, Any] | None:
        """The choice's part of a first chunk that precedes any text; None if there is no such chunk."""

    def ending(self) -> dict[str, Any]:
        """The choice's part of its last chunk, which holds no text."""


class ChatDialect:
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    has_one_prompt = True

    def content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def chunk_content(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        return chat_logprobs(tokens, names)

    def opening(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}

    def ending(self) -> dict[str, Any]:
        return {"delta": {}}


class CompletionDialect:
    """`/v1/completions` and `/v1/fim/completions`."""

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"
    has_one_prompt = False

    def content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    chunk_content = content

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        return completion_logprobs(tokens, names)

    def opening(self) -> None:
        return None

    def ending(self) -> dict[str, Any]:
        return {"text": ""}
