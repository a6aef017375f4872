"""The body of the endpoint that streams the denoising states."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, Tag, model_validator

from llada_core.sampling.events import Reporting
from server.http.api_error import bad_request, shortened
from server.schemas.base import MAX_ENTRIES, Body, List, NumberDict, Text, TextOrIds, TokenId, kind
from server.schemas.conversation import PromptOrMessages
from server.schemas.diffusion import DiffusionFields
from server.schemas.structured import FormattedFields


class MaskGap(Body):
    """Masked positions of a canvas, to be filled."""

    mask: int = Field(ge=1, description="the number of positions")


Segment = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[List[TokenId], Tag("<ids>")] | Annotated[MaskGap, Tag("<gap>")],
    kind("<text>", "<ids>", "<gap>"),
]


class DenoiseRequest(PromptOrMessages, FormattedFields, DiffusionFields):
    """`POST /v1/denoise`."""

    exclusive = ("prompt", "messages", "canvas")

    prompt: TextOrIds | None = Field(None, description="text or token ids")
    canvas: Annotated[list[Segment], Field(fail_fast=True, min_length=1, max_length=MAX_ENTRIES)] | None = Field(
        None, description="segments of text or token ids, and gaps between them, for infilling"
    )
    constraints: NumberDict[TextOrIds] = Field({}, description="text or token ids fixed at positions of the response")
    stream: Literal[True] = Field(True, description="the answer is always streamed")
    include_predictions: bool = Field(False, description="add the best guess at every masked position to each step")
    top_logprobs: int = Field(
        0, ge=0, le=20, description="add to each change this many of the most probable tokens when it was committed"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "Once upon a time", "max_tokens": 32, "steps": 8},
                {"canvas": ["Once upon a time there was a ", {"mask": 6}, ". They were best friends."]},
            ]
        }
    )

    @property
    def reporting(self) -> Reporting:
        """What each step reports besides its changes."""
        return Reporting(self.include_predictions, self.top_logprobs)

    @model_validator(mode="after")
    def _a_canvas_has_its_own_length(self) -> "DenoiseRequest":
        if self.canvas is not None:
            for name in (*self.length_names, "constraints"):
                if value := getattr(self, name):
                    raise bad_request(f"{name} is {shortened(value)} beside canvas; it must be absent", name)
            if self.form is not None:
                name = self.form.field.split(".")[0]
                raise bad_request(f"{name} is given beside canvas; it must be absent", name)
        return self
