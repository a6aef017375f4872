"""`/tokenize`, `/detokenize` and `/tokenizer_info`: the model's tokenizer, in vLLM's shapes."""

import asyncio

from fastapi import APIRouter, Request

from llada_core.text.special_tokens import BOS_TOKEN
from server.http.body import BoundedRoute
from server.schemas.answers import DetokenizedText, TokenizerInfo, Tokens
from server.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from server.service import service_of

router = APIRouter(route_class=BoundedRoute)


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, request: Request) -> Tokens:
    """Turn a text, or a conversation in the chat template, into the token ids that a generation would start from."""
    service = service_of(request)
    service.check_model(body.model)
    if body.messages is not None:
        ids = await service.prompts.encode_messages(body.messages, body, body.as_tools())
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
    service.canvases.vocabulary.shape.require_token_ids(body.tokens, "tokens")
    text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special_tokens=False)
    return DetokenizedText(prompt=text)


@router.get("/tokenizer_info")
async def tokenizer_info(request: Request) -> TokenizerInfo:
    """Describe the tokenizer: its special tokens and the chat format."""
    service = service_of(request)
    tokenizer = service.prompts.required_tokenizer("tokenizer_info")
    special = service.canvases.vocabulary.special_tokens
    named = tokenizer.special_tokens
    return TokenizerInfo(
        vocab_size=len(tokenizer),
        model_max_length=service.canvases.max_model_len,
        bos_token=BOS_TOKEN if BOS_TOKEN in named.values() else None,
        eos_token=named.get(special.eos_id),
        mask_token=named.get(special.mask_id),
        eot_token=None if special.eot_id is None else named.get(special.eot_id),
        added_tokens=named,
        chat_template=tokenizer.chat_template,
    )
