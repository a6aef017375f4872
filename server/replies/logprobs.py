"""Log-probabilities of a choice's tokens, in the shapes of OpenAI's two completion endpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llada_core.sampling.events import Change
from llada_core.text.final_text import FinalText
from llada_core.text.tokenizer import REPLACEMENT_CHARACTER, Tokenizer

# The number that vLLM writes.
_LEAST = -9999.0


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a choice's text.

    Attributes:
        offset: the index in the text at which it begins, in characters.
        change: the commit that wrote it; None for a token of the prompt or of a constraint.
    """

    token_id: int
    offset: int
    change: Change | None


@dataclass(frozen=True, slots=True)
class TokenNames:
    """Names tokens in an answer: by their text or, as ids and without a tokenizer, as in `token_id:5`."""

    tokenizer: Tokenizer | None
    as_ids: bool = False

    def of(self, token_id: int) -> str:
        is_named = self.tokenizer is not None and not self.as_ids
        return self._text_of(token_id) if is_named else f"token_id:{token_id}"

    def utf8_of(self, token_id: int) -> list[int] | None:
        """The bytes of the token's text; None if it ends within a character."""
        text = self._text_of(token_id)
        return None if REPLACEMENT_CHARACTER in text else list(text.encode())

    def _text_of(self, token_id: int) -> str:
        return f"token_id:{token_id}" if self.tokenizer is None else self.tokenizer.token_text(token_id)


def prompt_tokens(prompt: str | Sequence[int], ids: Sequence[int], tokenizer: Tokenizer | None) -> list[ScoredToken]:
    """The tokens of a prompt that the answer repeats; their offsets are those in its display text."""
    if tokenizer is None:
        offsets = [0] * len(ids)
    elif isinstance(prompt, str):
        offsets = tokenizer.offsets(prompt)
    else:
        final = FinalText(tokenizer)
        final.push(ids)
        final.flush()
        offsets = [final.start_of(index) for index in range(len(ids))]
    return [ScoredToken(token_id, offset, None) for token_id, offset in zip(ids, offsets, strict=True)]


def completion_logprobs(tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
    """The `logprobs` of a completion's choice."""
    return {
        "tokens": [names.of(token.token_id) for token in tokens],
        "token_logprobs": [_logprob(token.change) for token in tokens],
        "top_logprobs": [_top(token, names) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def chat_logprobs(tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
    """The `logprobs` of a chat completion's choice."""

    def entry(token_id: int, probability: float) -> dict[str, Any]:
        return {
            "token": names.of(token_id),
            "logprob": log_of(probability),
            "bytes": names.utf8_of(token_id),
        }

    content = []
    for token in tokens:
        assert token.change is not None
        top = [entry(token_id, probability) for token_id, probability in token.change.alternatives]
        content.append({**entry(token.token_id, token.change.confidence), "top_logprobs": top})
    return {"content": content, "refusal": None}


def response_logprobs(tokens: Sequence[ScoredToken], names: TokenNames) -> list[dict[str, Any]]:
    """The `logprobs` of a response's text: as a chat's, but bytes are a list even within a character."""
    content: list[dict[str, Any]] = chat_logprobs(tokens, names)["content"]
    for entry in content:
        for scored in (entry, *entry["top_logprobs"]):
            scored["bytes"] = scored["bytes"] or []
    return content


def commit_steps(tokens: Sequence[ScoredToken]) -> list[int | None]:
    """The step that committed each token."""
    return [token.change.step if token.change else None for token in tokens]


def _top(token: ScoredToken, names: TokenNames) -> dict[str, float] | None:
    if token.change is None:
        return None
    # OpenAI's rule: the token itself is always among the alternatives.
    ranked = (*token.change.alternatives, (token.token_id, token.change.confidence))
    return {names.of(token_id): log_of(probability) for token_id, probability in ranked}


def _logprob(change: Change | None) -> float | None:
    return None if change is None else log_of(change.confidence)


def log_of(probability: float) -> float:
    """The natural logarithm; JSON has no infinity, so that of 0 is a large negative number."""
    return max(math.log(probability), _LEAST) if probability > 0 else _LEAST
