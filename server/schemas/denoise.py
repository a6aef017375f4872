"""Body of the endpoint that shows the denoising states."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from server.errors import bad_request
from server.schemas.base import Body, NonEmptyList, NonEmptyText, NumberKey, Text, TokenId, TokenIds
from server.schemas.conversation import PromptOrMessages
from server.schemas.diffusion import DiffusionFields


class MaskGap(Body):
    """Positions of a canvas that are to be filled."""

    mask: int = Field(ge=1, description="how many")


def _kind_of_segment(value: Any) -> str | None:
    kinds = ((str, "<text>"), (list, "<ids>"), ((dict, MaskGap), "<gap>"))
    return next((tag for kind, tag in kinds if isinstance(value, kind)), None)


# Told apart before they are checked, so that an error speaks of the one that was meant.
Segment = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[TokenId], Tag("<ids>")] | Annotated[MaskGap, Tag("<gap>")],
    Discriminator(
        _kind_of_segment,
        custom_error_type="segment",
        custom_error_message='be a string, a list of token ids or {"mask": n}',
    ),
]


class DenoiseRequest(PromptOrMessages, DiffusionFields):
    """`POST /v1/denoise`."""

    exclusive = ("prompt", "messages", "canvas")

    prompt: NonEmptyText | TokenIds | None = Field(None, description="text or token ids")
    canvas: NonEmptyList[Segment] | None = Field(
        None, description="segments of text or token ids, and gaps between them, for infilling"
    )
    constraints: dict[NumberKey, Text | list[TokenId]] = Field(
        {},
        description="text or token ids that stand at a position of the response",
        json_schema_extra={"additionalProperties": False},
    )
    stream: Literal[True] = Field(True, description="always streamed")
    include_predictions: bool = Field(False, description="also the best guess at every masked position")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "Once upon a time", "max_tokens": 32, "steps": 8},
                {"canvas": ["Once upon a time there was a ", {"mask": 6}, ". They were best friends."]},
            ]
        }
    )

    @model_validator(mode="after")
    def _a_canvas_has_its_own_length(self) -> "DenoiseRequest":
        if self.canvas is not None:
            for name in (*self.length_names, "constraints"):
                if getattr(self, name):
                    raise bad_request(f"{name} is given beside canvas; it must be absent", name)
        return self
