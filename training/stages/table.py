"""The table of all stages."""

from collections.abc import Callable
from typing import Any

from llada_core.model.shape import ModelShape
from training.options.fields import (
    DistillOptions,
    DPOOptions,
    GRPOOptions,
    PretrainOptions,
    SFTOptions,
    TrainingOptions,
)
from training.stages.base import Stage
from training.stages.distill import Distillation
from training.stages.group_policy import GroupPolicy
from training.stages.preferences import Preferences
from training.stages.pretrain import Pretraining
from training.stages.sft import SFT

STAGES: dict[type[TrainingOptions], Callable[[Any, ModelShape], Stage]] = {
    PretrainOptions: Pretraining.from_options,
    SFTOptions: SFT.from_options,
    DPOOptions: Preferences.from_options,
    GRPOOptions: GroupPolicy.from_options,
    DistillOptions: Distillation.from_options,
}


def stage_of(options: TrainingOptions, shape: ModelShape) -> Stage:
    """The stage that a command's options choose, with its settings for a model.

    Raises:
        InvalidParameterError: the model attends block by block, and the stage has no objective for that.
    """
    return STAGES[type(options)](options, shape)
