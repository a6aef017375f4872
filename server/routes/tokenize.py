"""`POST /tokenize` and `/detokenize`: the model's tokenizer, in vLLM's shapes."""

import asyncio

from fastapi import APIRouter, Request

from server.schemas.answers import DetokenizedText, Tokens
from server.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from server.service import service_of

router = APIRouter()


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> Tokens:
    """Turn a text, or a conversation in the chat template, into the token ids that a generation would start from."""
    service = service_of(request)
    service.check_model(body.model)
    if body.messages is not None:
        ids = await service.prompts.encode_messages(body.messages, body)
    else:
        assert body.prompt is not None
        ids = await service.prompts.encode_text(body.prompt, add_special_tokens=body.add_special_tokens)
    tokenizer = service.prompts.required_tokenizer("prompt")
    return Tokens(
        count=len(ids),
        max_model_len=service.canvases.max_model_len,
        tokens=ids,
        token_strs=await asyncio.to_thread(tokenizer.pieces, ids) if body.return_token_strs else None,
    )


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, request: Request) -> DetokenizedText:
    """Turn token ids into text; special tokens are shown by name."""
    service = service_of(request)
    service.check_model(body.model)
    tokenizer = service.prompts.required_tokenizer("tokens")
    service.vocabulary.shape.require_token_ids(body.tokens, "tokens")
    text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special_tokens=False)
    return DetokenizedText(prompt=text)
