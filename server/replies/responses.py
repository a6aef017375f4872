"""An answer of OpenAI's responses endpoint: the response object, and its typed events as it grows."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

from sse_starlette import ServerSentEvent

from llada_core.text.thinking import ThinkingReader
from server.http.sse import event
from server.replies.envelope import Envelope
from server.replies.generation import Generation
from server.replies.logprobs import TokenNames, response_logprobs
from server.replies.running import Running
from server.replies.thinking import usage_with_thinking
from server.schemas.responses import ResponseRequest

ItemKind = Literal["message", "reasoning"]
# How the id of an item begins, and the type of its text.
_ID_PREFIX: Mapping[ItemKind, str] = {"message": "msg_", "reasoning": "rs_"}
_TEXT_TYPE: Mapping[ItemKind, str] = {"message": "output_text", "reasoning": "reasoning_text"}


@dataclass(slots=True)
class Item:
    """An item of the output as it grows: the message, or the thinking before it.

    Attributes:
        index: its place in the output.
        logprobs: the log-probabilities of a message's text, if they were requested.
    """

    kind: ItemKind
    index: int
    text: str = ""
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    def part(self) -> dict[str, Any]:
        """Its text so far."""
        part = {"type": _TEXT_TYPE[self.kind], "text": self.text}
        return part | {"annotations": [], "logprobs": self.logprobs} if self.kind == "message" else part


@dataclass(frozen=True, slots=True)
class ResponseReply:
    """One generation as a response. Events are numbered in the order in which they are sent.

    Attributes:
        thinking: tells thinking from what is said, if the answer may have any.
    """

    envelope: Envelope
    body: ResponseRequest
    generation: Generation
    running: Running
    names: TokenNames
    thinking: ThinkingReader | None = None
    _numbers: Iterator[int] = field(default_factory=count, init=False)
    _items: list[Item] = field(default_factory=list, init=False)
    # Those of tokens whose text no item has yet.
    _logprobs: list[dict[str, Any]] = field(default_factory=list, init=False)

    async def completed(self) -> dict[str, Any]:
        """Run the generation to completion and return the body of a plain answer."""
        await self.running.finish([self.generation])
        self._take_logprobs()
        for _ in self._extended(self.generation.text.text):
            pass  # the events of a stream
        return self._response()

    async def events(self) -> AsyncGenerator[ServerSentEvent]:
        """The typed events of a streamed response."""
        for type_ in ("response.created", "response.in_progress"):
            yield self._event(type_, response=self._response())
        if self.thinking is None:
            for opening in self._opened("message"):
                yield opening
        async with aclosing(self.running.steps(self.generation)) as steps:
            async for _, delta in steps:
                self._take_logprobs()
                for new in self._extended(delta):
                    yield new
        for closing in self._closed():
            yield closing
        yield self._event(f"response.{self._status}", response=self._response())

    def error_event(self, body: dict[str, Any]) -> ServerSentEvent:
        """The last event of a stream that failed."""
        return self._event("error", **{name: body["error"][name] for name in ("code", "message", "param")})

    def release(self) -> None:
        """Take the generation out of the batch if it still runs."""
        self.running.release([self.generation], self.generation.usage())

    def _extended(self, delta: str) -> Iterator[ServerSentEvent]:
        """Add text to the items that it belongs to; gives the events. An answer without any text is a message too."""
        is_last = self.generation.text.finish_reason is not None
        thinking, said = ("", delta) if self.thinking is None else self.thinking.push(delta, is_last=is_last)
        if self.thinking is not None and self.thinking.thinking is not None and not self._items:
            yield from self._opened("reasoning")
        if thinking:
            yield self._grown(delta=thinking)
        is_behind = bool(self._items) and self._items[-1].kind == "message"
        if not is_behind and (said or (is_last and not self._items)):
            yield from self._opened("message")
            is_behind = True
        if is_behind and (said or self._logprobs):
            logprobs = list(self._logprobs)
            self._logprobs.clear()
            self._items[-1].logprobs += logprobs
            yield self._grown(delta=said, logprobs=logprobs)

    def _opened(self, kind: ItemKind) -> Iterator[ServerSentEvent]:
        """The events at the beginning of an item, behind those at the end of the one before."""
        yield from self._closed(status="completed")
        item = Item(kind, len(self._items))
        self._items.append(item)
        shown = self._item(item, "in_progress", [])
        yield self._event("response.output_item.added", output_index=item.index, item=shown)
        yield self._event("response.content_part.added", **self._place(item), part=item.part())

    def _grown(self, *, delta: str, **more: Any) -> ServerSentEvent:
        item = self._items[-1]
        item.text += delta
        return self._event(f"response.{_TEXT_TYPE[item.kind]}.delta", **self._place(item), delta=delta, **more)

    def _closed(self, status: str | None = None) -> Iterator[ServerSentEvent]:
        """The events at the end of the last item, if there is one; its status is the response's if not given."""
        for item in self._items[-1:]:
            part = item.part()
            text = {name: value for name, value in part.items() if name in ("text", "logprobs")}
            yield self._event(f"response.{part['type']}.done", **self._place(item), **text)
            yield self._event("response.content_part.done", **self._place(item), part=part)
            shown = self._item(item, status or self._status, [part])
            yield self._event("response.output_item.done", output_index=item.index, item=shown)

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
            "output": self._output() if is_finished else [],
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
            "usage": usage_with_thinking(self.generation, self.thinking).as_response() if is_finished else None,
            "user": body.user,
            "generation_params": self.generation.generation_params(),
        }

    def _format(self) -> dict[str, Any]:
        format_ = self.body.text.format if self.body.text else None
        return format_.model_dump(by_alias=True, exclude_unset=True) if format_ else {"type": "text"}

    @property
    def _status(self) -> str:
        return {None: "in_progress", "length": "incomplete"}.get(self.generation.text.finish_reason, "completed")

    def _output(self) -> list[dict[str, Any]]:
        """All items, finished: only the last one can be incomplete."""
        statuses = ["completed"] * (len(self._items) - 1) + [self._status]
        return [self._item(item, status, [item.part()]) for item, status in zip(self._items, statuses, strict=True)]

    def _item(self, item: Item, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        more: dict[str, Any] = {"role": "assistant"} if item.kind == "message" else {"summary": []}
        return {"type": item.kind, "id": self._id_of(item), "status": status, **more, "content": content}

    def _place(self, item: Item) -> dict[str, Any]:
        """The place of an item's text."""
        return {"item_id": self._id_of(item), "output_index": item.index, "content_index": 0}

    def _id_of(self, item: Item) -> str:
        return self.envelope.id.replace("resp_", _ID_PREFIX[item.kind], 1)

    def _take_logprobs(self) -> None:
        """Take the log-probabilities of the tokens that became final since the last call, if they were requested."""
        if self.body.num_alternatives is not None:
            self._logprobs.extend(response_logprobs(self.generation.text.take_tokens(), self.names))
