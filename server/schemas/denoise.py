"""The body of the endpoint that streams the denoising states."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, Tag, model_validator

from llada_core.sampling.events import Reporting
from server.http.api_error import bad_request, shortened
from server.schemas.base import MAX_ENTRIES, Body, List, NonEmptyText, NumberDict, Text, TextOrIds, TokenId, kind
from server.schemas.conversation import PromptOrMessages
from server.schemas.diffusion import DiffusionFields
from server.schemas.structured import FormattedFields

# The alternatives that a reading gives if the request does not say how many.
READ_ALTERNATIVES = 5
# A step's number is a coordinate of its noise; no run comes near this many.
MAX_STEP = 2**31
# What says the form of an answer.
_FORMS = ("response_format", "structured_outputs")


class MaskGap(Body):
    """Masked positions of a canvas, to be filled."""

    mask: int = Field(ge=1, description="the number of positions")


class Fork(Body):
    """A frame of a run that the server still keeps, and what is changed in it."""

    id: NonEmptyText = Field(description="the id of the run, as in its `start`")
    step: int = Field(ge=0, lt=MAX_STEP, description="the frame before the run's step of this number")
    remask: List[TokenId] = Field([], description="positions of the response that become masks")
    set: NumberDict[TextOrIds] = Field(
        {}, description="position of the response → text or token ids written from there on"
    )


Segment = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[List[TokenId], Tag("<ids>")] | Annotated[MaskGap, Tag("<gap>")],
    kind("<text>", "<ids>", "<gap>"),
]


class DenoiseRequest(PromptOrMessages, FormattedFields, DiffusionFields):
    """`POST /v1/denoise`."""

    exclusive = ("prompt", "messages", "canvas", "fork")

    prompt: TextOrIds | None = Field(None, description="text or token ids")
    canvas: Annotated[list[Segment], Field(fail_fast=True, min_length=1, max_length=MAX_ENTRIES)] | None = Field(
        None, description="segments of text or token ids, and gaps between them, for infilling"
    )
    fork: Fork | None = Field(None, description="go on from a frame of another run")
    step: int = Field(
        0, ge=0, lt=MAX_STEP, description="the number of the first step: noise is that of (seed, step, position)"
    )
    steps: int | None = Field(
        None,
        ge=0,
        description="denoising steps over the whole response, or those left of a fork; default max_tokens; "
        "0: read the distributions at the masks",
    )
    constraints: NumberDict[TextOrIds] = Field({}, description="text or token ids fixed at positions of the response")
    stream: Literal[True] = Field(True, description="the answer is streamed, unless steps is 0")
    include_predictions: bool = Field(False, description="add the best guess at every masked position to each step")
    top_logprobs: int = Field(
        0,
        ge=0,
        le=20,
        description="add to each change this many of the most probable tokens when it was committed; "
        f"with steps 0 those at each mask, default {READ_ALTERNATIVES}",
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "Once upon a time", "max_tokens": 32, "steps": 8},
                {"canvas": ["Once upon a time there was a ", {"mask": 6}, ". They were best friends."]},
                {"canvas": ["The capital of France is", {"mask": 1}, "."], "steps": 0, "top_logprobs": 3},
            ]
        }
    )

    @property
    def is_reading(self) -> bool:
        """Whether nothing is to be committed: the answer is what the model expects at the masks."""
        return self.steps == 0

    def reporting(self, parent: Reporting | None = None) -> Reporting:
        """What each step reports besides its changes; fields that a fork leaves out are its parent's."""
        if self.is_reading:
            return Reporting(num_alternatives=self.top_logprobs or READ_ALTERNATIVES)
        given, parent = self.model_fields_set, parent or Reporting()
        return Reporting(
            self.include_predictions if "include_predictions" in given else parent.include_predictions,
            self.top_logprobs if "top_logprobs" in given else parent.num_alternatives,
        )

    def _settings(self) -> dict[str, Any]:
        settings = super()._settings()
        if self.is_reading:
            del settings["steps"]
        return settings

    @model_validator(mode="after")
    def _a_canvas_has_its_own_length(self) -> "DenoiseRequest":
        if self.canvas is not None:
            self._refuse((*self.length_names, "constraints", *_FORMS), "beside canvas; it must be absent")
        if self.fork is not None:
            why = "beside fork; it must be absent: a fork has the canvas and the blocks of its parent"
            self._refuse((*self.length_names, "block_length", "method", "constraints", "step", *_FORMS), why)
        return self

    @model_validator(mode="after")
    def _a_reading_has_something_to_read(self) -> "DenoiseRequest":
        if self.is_reading and "top_logprobs" in self.model_fields_set and self.top_logprobs == 0:
            raise bad_request("top_logprobs is 0 beside steps 0; it must be from 1 to 20", "top_logprobs")
        return self

    def _refuse(self, names: tuple[str, ...], why: str) -> None:
        for name in names:
            if name in self.model_fields_set and (value := getattr(self, name)):
                raise bad_request(f"{name} is {'given' if isinstance(value, Body) else shortened(value)} {why}", name)
