"""Request bodies, checked by pydantic. What API.md does not list is refused by name, never accepted and ignored."""

from server.schemas.conversation import ChatFields, ChatMessage
from server.schemas.denoise import DenoiseRequest, MaskGap
from server.schemas.diffusion import DiffusionFields
from server.schemas.openai import ChatCompletionRequest, CompletionRequest, FillInTheMiddleRequest, OpenAIFields
from server.schemas.responses import ResponseRequest
from server.schemas.score import ScoreRequest
from server.schemas.tokenize import DetokenizeRequest, TokenizeRequest

__all__ = [
    "ChatCompletionRequest",
    "ChatFields",
    "ChatMessage",
    "CompletionRequest",
    "DenoiseRequest",
    "DetokenizeRequest",
    "DiffusionFields",
    "FillInTheMiddleRequest",
    "MaskGap",
    "OpenAIFields",
    "ResponseRequest",
    "ScoreRequest",
    "TokenizeRequest",
]
