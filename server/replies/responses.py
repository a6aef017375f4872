"""An answer of OpenAI's responses endpoint: the response object, and its typed events as it grows."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sse_starlette import ServerSentEvent

from server.http.sse import event
from server.replies.envelope import Envelope
from server.replies.generation import Generation
from server.replies.logprobs import TokenNames, response_logprobs
from server.replies.running import Running
from server.schemas.responses import ResponseRequest


@dataclass(frozen=True, slots=True)
class ResponseReply:
    """One generation as a response. Events are numbered in the order in which they are sent."""

    envelope: Envelope
    body: ResponseRequest
    generation: Generation
    running: Running
    names: TokenNames
    _numbers: Iterator[int] = field(default_factory=count, init=False)
    _logprobs: list[dict[str, Any]] = field(default_factory=list, init=False)

    async def completed(self) -> dict[str, Any]:
        """Run the generation to completion and return the body of a plain answer."""
        await self.running.finish([self.generation])
        self._new_logprobs()
        return self._response()

    async def events(self) -> AsyncGenerator[ServerSentEvent]:
        """The typed events of a streamed response."""
        text = self.generation.text
        place = {"item_id": self._message_id, "output_index": 0, "content_index": 0}
        for type_ in ("response.created", "response.in_progress"):
            yield self._event(type_, response=self._response())
        yield self._event("response.output_item.added", output_index=0, item=self._message("in_progress", []))
        yield self._event("response.content_part.added", **place, part=_output_text("", []))
        async with aclosing(self.running.steps(self.generation)) as steps:
            async for _, delta in steps:
                logprobs = self._new_logprobs()
                if delta or logprobs:
                    yield self._event("response.output_text.delta", **place, delta=delta, logprobs=logprobs)
        part = self._part()
        yield self._event("response.output_text.done", **place, text=text.text, logprobs=self._logprobs)
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=self._message(self._status, [part]))
        yield self._event(f"response.{self._status}", response=self._response())

    def error_event(self, body: dict[str, Any]) -> ServerSentEvent:
        """The last event of a stream that failed."""
        return self._event("error", **{name: body["error"][name] for name in ("code", "message", "param")})

    def release(self) -> None:
        """Take the generation out of the batch if it still runs."""
        self.running.release([self.generation], self.generation.usage())

    def _event(self, type_: str, **fields: Any) -> ServerSentEvent:
        return event({"type": type_, "sequence_number": next(self._numbers), **fields}, name=type_)

    def _response(self) -> dict[str, Any]:
        """The response object as it stands: in progress, or finished."""
        body, params = self.body, self.generation.canvas.params
        is_finished = self.generation.text.finish_reason is not None
        return {
            "id": self.envelope.id,
            "object": "response",
            "created_at": self.envelope.created,
            "status": self._status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if self._status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": params.gen_length,
            "metadata": body.metadata or {},
            "model": self.envelope.model,
            "output": [self._message(self._status, [self._part()])] if is_finished else [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": params.temperature,
            "text": {"format": self._format()},
            "tool_choice": "none",
            "tools": [],
            "top_logprobs": body.top_logprobs,
            "top_p": params.top_p,
            "truncation": "disabled",
            "usage": self.generation.usage().as_response() if is_finished else None,
            "user": body.user,
            "generation_params": self.generation.generation_params(),
        }

    def _format(self) -> dict[str, Any]:
        format_ = self.body.text.format if self.body.text else None
        return format_.model_dump(by_alias=True, exclude_unset=True) if format_ else {"type": "text"}

    @property
    def _status(self) -> str:
        return {None: "in_progress", "length": "incomplete"}.get(self.generation.text.finish_reason, "completed")

    @property
    def _message_id(self) -> str:
        return self.envelope.id.replace("resp_", "msg_", 1)

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._message_id,
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def _part(self) -> dict[str, Any]:
        return _output_text(self.generation.text.text, self._logprobs)

    def _new_logprobs(self) -> list[dict[str, Any]]:
        """The log-probabilities of the tokens that became final since the last call, if they were requested."""
        if self.body.num_alternatives is None:
            return []
        new = response_logprobs(self.generation.text.take_tokens(), self.names)
        self._logprobs.extend(new)
        return new


def _output_text(text: str, logprobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
