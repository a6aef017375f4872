"""The bodies of the tokenizer's endpoints."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from server.http.api_error import bad_request
from server.schemas.base import Body, List, Text, TokenId
from server.schemas.conversation import PromptOrMessages
from server.schemas.tools import ToolFields


class TokenizeRequest(ToolFields, PromptOrMessages):
    """`POST /tokenize`."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "chat_template": (),
        "chat_template_kwargs": ({},),
        "mm_processor_kwargs": (),
    }

    model: str | None = Field(None, description="the served model's name; may be omitted")
    prompt: Text | None = Field(None, description="text to encode")
    add_special_tokens: bool = Field(
        True, description="with a prompt: add the special tokens that the tokenizer itself adds"
    )
    return_token_strs: bool = Field(False, description="also return every token as the vocabulary writes it")

    @model_validator(mode="after")
    def _a_chat_gets_no_more_than_its_template(self) -> "TokenizeRequest":
        if self.messages is not None and "add_special_tokens" in self.model_fields_set and self.add_special_tokens:
            raise bad_request("add_special_tokens is True; it must be false with messages", "add_special_tokens")
        return self

    @model_validator(mode="after")
    def _tools_belong_to_a_conversation(self) -> "TokenizeRequest":
        if self.tools and self.messages is None:
            raise bad_request("tools are given without messages; they must be absent", "tools")
        return self

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time"}]})


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    tokens: List[TokenId] = Field(description="token ids")

    model_config = ConfigDict(json_schema_extra={"examples": [{"tokens": [20, 30, 40]}]})
