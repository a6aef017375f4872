"""Thinking as chat answers show it, apart from what is said."""

from dataclasses import replace

from llada_core.text.thinking import ThinkingReader
from server.replies.generation import Generation
from server.replies.usage import Usage


def thinking_fields(thinking: str | None) -> dict[str, str | None]:
    """The fields of a message or a delta: `reasoning_content`, DeepSeek's name, is `reasoning` in newer vLLM."""
    return {"reasoning_content": thinking, "reasoning": thinking}


def usage_with_thinking(generation: Generation, reader: ThinkingReader | None) -> Usage:
    """The usage so far, with the tokens of the thinking that was read; None reads none."""
    usage = generation.usage()
    if reader is None or reader.thinking is None:
        return usage
    num_tokens = generation.text.num_tokens_in(reader.start, reader.start + len(reader.thinking))
    return replace(usage, reasoning_tokens=num_tokens)
