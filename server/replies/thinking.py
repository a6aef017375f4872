"""Thinking as chat answers show it, apart from what is said."""


def thinking_fields(thinking: str | None) -> dict[str, str | None]:
    """The fields of a message or a delta: `reasoning_content`, DeepSeek's name, is `reasoning` in newer vLLM."""
    return {"reasoning_content": thinking, "reasoning": thinking}
