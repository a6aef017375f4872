"""The body of the likelihood endpoint."""

from pydantic import ConfigDict, Field

from server.schemas.base import Body, TextOrIds


class ScoreRequest(Body):
    """`POST /v1/score`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    prompt: TextOrIds = Field(description="text or token ids")
    completion: TextOrIds = Field(description="text or token ids whose likelihood is estimated")
    mc_num: int = Field(128, ge=1, le=4096, description="number of Monte-Carlo draws")
    cfg_scale: float = Field(0.0, ge=0, le=1e6, description="strength of classifier-free guidance")
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**64, description="the same request with the same seed gives the same estimate"
    )

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "The capital of France is", "completion": " Paris.", "mc_num": 32, "seed": 0}]
        }
    )
