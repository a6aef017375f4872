"""The common path of completions and chat completions once their prompts are token ids."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from llada_core.text.thinking import ThinkingForm, ThinkingReader
from server.http.sse import StreamResponse, while_connected
from server.replies.denoised import Choice, DenoisedReply, Echo
from server.replies.dialects import Dialect
from server.replies.openai_shape import OpenAIShape
from server.replies.tool_calls import CallReader
from server.schemas.openai import OpenAIFields
from server.schemas.structured import AnswerForm
from server.service import client_of, service_of


@dataclass(frozen=True, slots=True)
class Calling:
    """How an answer calls tools: its texts, and how they are read."""

    form: AnswerForm
    reader: Callable[[], CallReader]


async def answer(
    dialect: Dialect,
    body: OpenAIFields,
    prompts: Sequence[list[int]],
    request: Request,
    *,
    suffix: Sequence[int] = (),
    echoes: Sequence[Echo] | None = None,
    calling: Calling | None = None,
    thinking: ThinkingForm | None = None,
) -> dict[str, Any] | StreamResponse:
    """Produce `n` choices after each prompt and answer as `body` asks: as a whole, or streamed.

    Args:
        echoes: for each prompt, the text with which its choices begin.
        calling: how the answer may call tools.
        thinking: where thinking may be in the answer.
    """
    service = service_of(request)
    form = calling.form if calling else body.form
    if form is not None:
        # Before work that a refusal would waste.
        service.running.require_room(client_of(request), len(prompts) * body.n)
    constraint = await service.constraints.compiled(form)
    canvases = service.canvases.choices(body, prompts, suffix=suffix, constraint=constraint)
    generations = service.running.submit(canvases, client_of(request))
    shape = OpenAIShape(service.envelope(body, dialect.id_prefix), dialect, body, prompts)
    choices = [
        Choice(
            index,
            generation,
            echoes[index // body.n] if echoes else None,
            calling.reader() if calling else None,
            ThinkingReader(thinking) if thinking else None,
        )
        for index, generation in enumerate(generations)
    ]
    reply = DenoisedReply(shape, choices, service.running, service.canvases.vocabulary.tokenizer)
    if body.stream:
        return StreamResponse(reply.chunks(), request, release=reply.release)
    return await while_connected(request, reply.completed(), release=reply.release)
