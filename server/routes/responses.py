"""`POST /v1/responses`: OpenAI's responses over denoising. Nothing is stored, so nothing is continued by an id."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from fastapi import APIRouter, Request, Response
from sse_starlette import ServerSentEvent

from server.http.sse import StreamResponse, event, while_connected
from server.replies.generation import Generation
from server.schemas import ChatFields, ResponseRequest
from server.schemas.answers import ResponseObject, answers, events
from server.state import ServerState, state_of

router = APIRouter()


@router.post(
    "/v1/responses",
    response_model=None,
    responses=answers(ResponseObject, events("with stream: response.created to response.completed", "event", "data")),
)
async def create_response(body: ResponseRequest, request: Request) -> dict[str, Any] | Response:
    """Reply to text or to a conversation."""
    state = state_of(request)
    state.check_model(body.model)
    prompt = await state.encode_messages(body.messages, ChatFields())
    (generation,) = state.admit(body, [state.canvas(body, prompt)], id_prefix="resp")
    answer = ResponseAnswer(state, body, generation)
    if not body.stream:
        await while_connected(request, state.finish(generation))
        return answer.response()
    numbers = count()

    def error_event(error: dict[str, Any]) -> ServerSentEvent:
        return _typed("error", numbers, **{name: error["error"][name] for name in ("code", "message", "param")})

    release = partial(state.engine.cancel, generation.request)
    return StreamResponse(answer.events(numbers), request, release=release, error_event=error_event)


@dataclass(frozen=True, slots=True)
class ResponseAnswer:
    """One generation on its way to a client of the responses endpoint."""

    state: ServerState
    body: ResponseRequest
    generation: Generation

    async def events(self, numbers: "count[int]") -> AsyncGenerator[ServerSentEvent]:
        """The typed events of a streamed response."""
        text = self.generation.text
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        for name in ("response.created", "response.in_progress"):
            yield _typed(name, numbers, response=self.response())
        yield _typed("response.output_item.added", numbers, output_index=0, item=self._message("in_progress", []))
        yield _typed("response.content_part.added", numbers, **place, part=_output_text(""))
        async with aclosing(self.state.steps(self.generation)) as steps:
            async for _, delta in steps:
                if delta:
                    yield _typed("response.output_text.delta", numbers, **place, delta=delta, logprobs=[])
        part = _output_text(text.text)
        yield _typed("response.output_text.done", numbers, **place, text=text.text, logprobs=[])
        yield _typed("response.content_part.done", numbers, **place, part=part)
        yield _typed("response.output_item.done", numbers, output_index=0, item=self._message(self._status, [part]))
        yield _typed(f"response.{self._status}", numbers, response=self.response())

    def response(self) -> dict[str, Any]:
        """The response object as it stands: in progress, or finished."""
        body, params = self.body, self.generation.canvas.params
        is_finished = self.generation.text.finish_reason is not None
        return {
            "id": self.generation.id,
            "object": "response",
            "created_at": self.generation.created,
            "status": self._status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if self._status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": params.gen_length,
            "metadata": body.metadata or {},
            "model": self.state.settings.model_name,
            "output": [self._message(self._status, [_output_text(self.generation.text.text)])] if is_finished else [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": params.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": self._usage() if is_finished else None,
            "user": body.user,
            "generation_params": self.generation.generation_params(),
        }

    @property
    def _status(self) -> str:
        return {None: "in_progress", "length": "incomplete"}.get(self.generation.text.finish_reason, "completed")

    @property
    def _message_id(self) -> str:
        return self.generation.id.replace("resp-", "msg-", 1)

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._message_id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _usage(self) -> dict[str, Any]:
        usage = self.generation.usage()
        return {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
            "denoising_steps": usage["denoising_steps"],
            "forward_passes": usage["forward_passes"],
        }


def _output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _typed(name: str, numbers: "count[int]", **fields: Any) -> ServerSentEvent:
    return event({"type": name, "sequence_number": next(numbers), **fields}, name=name)
