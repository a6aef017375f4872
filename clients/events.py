"""The events of `POST /v1/denoise` as dataclasses; every position counts from the first token of the response."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Start:
    """What is about to be denoised.

    Attributes:
        id: with it a stream that was cut off is taken up again.
        block_offset: tokens before the response that blocks count too: those of the prompt on a block-causal model.
        steps: the number of steps planned; None under a parallel rule, which decides as it goes.
        special_tokens: the names of mask, EOS and, where the model has one, EoT by their ids.
        token_ids: the response before the first step, masks and given tokens, `gen_length` entries.
        generation_params: the settings in use, defaults and preset resolved.
        parent: the frame that a fork goes on from; None for a run of its own.
        changes: what a fork's parent had written and no edit has undone.
    """

    id: str
    model: str
    created: int
    prompt_tokens: int
    gen_length: int
    block_length: int
    steps: int | None
    mask_token_id: int
    special_tokens: Mapping[int, str]
    token_ids: tuple[int, ...]
    generation_params: Mapping[str, Any]
    block_offset: int = 0
    parent: "Parent | None" = None
    changes: "tuple[Change, ...]" = ()

    def block_of(self, position: int) -> int:
        """The number of the block that a position of the response lies in, as steps count them."""
        return (self.block_offset + position) // self.block_length


@dataclass(frozen=True, slots=True)
class Parent:
    """The run that a fork goes on from, and the number of the step before which it left."""

    id: str
    step: int


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the most probable tokens at a position, when it was committed."""

    token_id: int
    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best guess at a position that is still masked."""

    position: int
    token_id: int
    confidence: float
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """One position that a step wrote.

    Attributes:
        op: `commit`: a mask became the token; `edit`: a token was replaced; `remask`: it became a mask again.
        step: the step that wrote it; may be earlier than that of the event, which a slow reader finds merged.
        text: the token decoded alone; empty for special tokens, and without a tokenizer.
        confidence: its softmax probability.
        previous_token_id: the token that an `edit` replaced.
        top_logprobs: the most probable tokens at that step, if the request asked for them.
    """

    op: Literal["commit", "edit", "remask"]
    step: int
    position: int
    token_id: int
    text: str
    confidence: float
    previous_token_id: int | None = None
    top_logprobs: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A denoising step.

    Attributes:
        masked: masks left in the whole response.
        elapsed_ms: since the request was admitted.
        predictions: the best guess at every masked position; None if the request did not ask for it, or in a replay.
    """

    step: int
    block: int
    changes: tuple[Change, ...]
    masked: int
    elapsed_ms: float
    predictions: tuple[Prediction, ...] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a stream.

    Attributes:
        token_ids: the whole canvas as it stands; masks may remain behind the end of the text.
    """

    text: str
    finish_reason: str
    usage: Mapping[str, Any]
    token_ids: tuple[int, ...]


Event = Start | Step | Done


def event_of(name: str, data: Mapping[str, Any]) -> Event:
    """The event that the server calls `name`; fields that it does not know are passed over, for newer servers."""
    match name:
        case "start":
            special = {int(token_id): text for token_id, text in data["special_tokens"].items()}
            parent = Parent(**_known(Parent, data["parent"])) if data.get("parent") else None
            changes = tuple(_change(change) for change in data.get("changes", ()))
            known = {**_known(Start, data), "special_tokens": special, "token_ids": tuple(data["token_ids"])}
            return Start(**{**known, "parent": parent, "changes": changes})
        case "step":
            changes = tuple(_change(change) for change in data["changes"])
            guesses = data.get("predictions")
            predictions = None if guesses is None else tuple(Prediction(**_known(Prediction, one)) for one in guesses)
            return Step(**{**_known(Step, data), "changes": changes, "predictions": predictions})
        case "done":
            return Done(**{**_known(Done, data), "token_ids": tuple(data["token_ids"])})
    raise ValueError(f"unknown event {name!r}")


def _change(data: Mapping[str, Any]) -> Change:
    alternatives = tuple(Alternative(**_known(Alternative, one)) for one in data.get("top_logprobs", ()))
    return Change(**{**_known(Change, data), "top_logprobs": alternatives})


def _known(
    kind: type[Start | Parent | Change | Step | Done | Alternative | Prediction], data: Mapping[str, Any]
) -> dict[str, Any]:
    return {part.name: data[part.name] for part in fields(kind) if part.name in data}
