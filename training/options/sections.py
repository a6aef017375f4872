"""The sections of a config file, the command and options class of each, and the stages among them."""

from training.options.fields import (
    CalibrateOptions,
    EvalOptions,
    ExportOptions,
    GenerateOptions,
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
    "inference": GenerateOptions,
    "evaluation": EvalOptions,
    "calibration": CalibrateOptions,
    "export": ExportOptions,
}
SECTION_OF_COMMAND = {
    "tokenizer": "tokenizer",
    "pretrain": "pretraining",
    "sft": "sft",
    "generate": "inference",
    "eval": "evaluation",
    "calibrate": "calibration",
    "export": "export",
}

# The sections that `pipeline` runs from the file alone, in this order, and the folders they write in `output_dir`.
TRAINING_STAGES = ("tokenizer", "pretraining", "sft")
FOLDERS = {"tokenizer": "tokenizer", "pretraining": "base", "sft": "instruct"}


def option_names(kind: type[Options]) -> set[str]:
    """The names of a class's options, as they are written in a file."""
    return {info.alias or name for name, info in kind.model_fields.items()}
