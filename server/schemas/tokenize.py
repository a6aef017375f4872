"""Bodies of the tokenizer's endpoints."""

from pydantic import ConfigDict, Field

from server.schemas.base import Body, Text, TokenId
from server.schemas.conversation import PromptOrMessages


class TokenizeRequest(PromptOrMessages):
    """`POST /tokenize`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    prompt: Text | None = Field(None, description="text")
    add_special_tokens: bool = Field(True, description="with a prompt: add what the tokenizer itself adds")
    return_token_strs: bool = Field(False, description="also every token as a string")

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time"}]})


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    tokens: list[TokenId] = Field(description="token ids")

    model_config = ConfigDict(json_schema_extra={"examples": [{"tokens": [20, 30, 40]}]})
