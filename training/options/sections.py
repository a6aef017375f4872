"""The sections of a config file, the command and options class of each, and the stages among them."""

from training.options.fields import (
    CalibrateOptions,
    DistillOptions,
    DPOOptions,
    EvalOptions,
    ExportOptions,
    GenerateOptions,
    GRPOOptions,
    Options,
    PretrainOptions,
    SFTOptions,
    TokenizerOptions,
)

# The options that each section may hold.
SECTIONS: dict[str, type[Options]] = {
    "tokenizer": TokenizerOptions,
    "pretraining": PretrainOptions,
    "sft": SFTOptions,
    "dpo": DPOOptions,
    "grpo": GRPOOptions,
    "distill": DistillOptions,
    "inference": GenerateOptions,
    "evaluation": EvalOptions,
    "calibration": CalibrateOptions,
    "export": ExportOptions,
}
SECTION_OF_COMMAND = {
    "tokenizer": "tokenizer",
    "pretrain": "pretraining",
    "sft": "sft",
    "dpo": "dpo",
    "grpo": "grpo",
    "distill": "distill",
    "generate": "inference",
    "eval": "evaluation",
    "calibrate": "calibration",
    "export": "export",
}

# The sections that `pipeline` runs from the file alone, in this order, and the folders they write in `output_dir`; a
# model's stage starts from the model of the one before.
MODEL_STAGES = ("pretraining", "sft", "dpo", "grpo", "distill")
TRAINING_STAGES = ("tokenizer", *MODEL_STAGES)
FOLDERS = {
    "tokenizer": "tokenizer",
    "pretraining": "base",
    "sft": "instruct",
    "dpo": "preferred",
    "grpo": "rewarded",
    "distill": "distilled",
}


def option_names(kind: type[Options]) -> set[str]:
    """The names of a class's options, as they are written in a file."""
    return {info.alias or name for name, info in kind.model_fields.items()}
