"""One YAML file for a whole run, and how its keys and the command line's become the options of a stage.

    output_dir: out                 # stages write out/tokenizer, out/base, out/instruct and feed each other
    seed: 0                         # top-level keys are defaults for every stage that has such an option
    model: {config: config.json, max_length: 512}         # or name_or_path: a checkpoint to start from
    tokenizer: {train_data_path: [text.jsonl], vocab_size: 4096}
    pretraining: {train_data_path: [text.jsonl], max_steps: 1000, batch_size: 32}
    sft: {train_data_path: [chats.jsonl], max_steps: 500}
    inference: {default_method: semi_autoregressive_padding, gen_length: 128}

A stage's section takes every option of its command; what the command line gives wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import AliasChoices, ValidationError

from training.errors import TrainingError
from training.options import (
    EvalOptions,
    ExportOptions,
    GenerateOptions,
    InferenceOptions,
    Options,
    PretrainOptions,
    SFTOptions,
    TokenizerOptions,
)

STAGES: dict[str, type[Options]] = {
    "tokenizer": TokenizerOptions,
    "pretraining": PretrainOptions,
    "sft": SFTOptions,
    "inference": InferenceOptions,
}

_MODEL_KEYS = {"name_or_path", "config", "max_length"}

OptionsT = TypeVar("OptionsT", bound=Options)


def build_options(kind: type[OptionsT], values: Mapping[str, Any], *, where: str) -> OptionsT:
    """Validate; the error names place, key, value and rule.

    Raises:
        TrainingError: an unknown key, or a value that breaks its rule.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise TrainingError("; ".join(_problem(problem, where, kind) for problem in error.errors())) from None


@dataclass(frozen=True)
class RunConfig:
    """A parsed config file."""

    file: Path
    output_dir: Path
    model: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    shared: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> "RunConfig":
        """Read and check the file: every section is validated, whichever stage will run.

        Raises:
            TrainingError: not YAML, an unknown section or key, a value that breaks its rule.
        """
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise TrainingError(f"--config: {file}: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise TrainingError(f"{file.name}: not YAML: {error}") from None
        if not isinstance(content, dict):
            raise TrainingError(f"{file.name}: must be a mapping of sections and keys")
        sections = {stage: _mapping(file, stage, content.pop(stage)) for stage in STAGES if stage in content}
        model = _mapping(file, "model", content.pop("model", {}))
        output_dir = content.pop("output_dir", None)
        if not isinstance(output_dir, str):
            raise TrainingError(f"{file.name}: output_dir: needs a folder")
        _require_known(file, "model.", model, _MODEL_KEYS)
        _require_known(file, "", content, {name for kind in STAGES.values() for name in _names(kind)})
        config = cls(file, Path(output_dir), model, sections, content)
        for stage in sections:
            config.stage(stage)
        return config

    def stage(self, stage: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """The options of one stage: what other stages give it, shared keys, its section, then `overrides`."""
        kind = STAGES[stage]
        known = _names(kind)
        shared = {name: value for name, value in self.shared.items() if name in known}
        values = {**self._from_other_stages(stage), **shared, **self.sections.get(stage, {}), **(overrides or {})}
        # A file that starts from a checkpoint has no use for the other way to start, and the reverse.
        for one, other in (("model_config", "model_name_or_path"), ("max_steps", "num_epochs")):
            for given, dropped in ((one, other), (other, one)):
                if given in (overrides or {}) and dropped not in (overrides or {}):
                    values.pop(dropped, None)
        return build_options(kind, values, where=f"{self.file.name}: {stage}")

    def folder(self, stage: str) -> Path:
        """Where a stage writes."""
        return self.output_dir / {"tokenizer": "tokenizer", "pretraining": "base", "sft": "instruct"}[stage]

    def can_start(self, stage: str) -> bool:
        """Whether what a training stage takes from the stage before is there."""
        given = self._from_other_stages(stage)
        if stage == "sft" and "pretraining" in self.sections:
            return (Path(given["model_name_or_path"]) / "config.json").exists()
        return "tokenizer" not in given or (Path(given["tokenizer"]) / "tokenizer.json").exists()

    @property
    def trained_model(self) -> str:
        """What inference runs: the last model that the file's stages make, or the one they would start from."""
        for stage in ("sft", "pretraining"):
            if stage in self.sections:
                return str(self.folder(stage))
        if "name_or_path" not in self.model:
            raise TrainingError(f"{self.file.name}: inference needs model.name_or_path, or a stage that trains a model")
        return str(self.model["name_or_path"])

    def _from_other_stages(self, stage: str) -> dict[str, Any]:
        if stage == "inference":
            return {}
        values: dict[str, Any] = {"output_dir": str(self.folder(stage))}
        if stage == "tokenizer":
            return values
        if "max_length" in self.model:
            values["max_length"] = self.model["max_length"]
        if stage == "sft" and "pretraining" in self.sections:
            values["model_name_or_path"] = str(self.folder("pretraining"))
        elif "name_or_path" in self.model:
            values["model_name_or_path"] = self.model["name_or_path"]
        elif "config" in self.model and stage == "pretraining":
            values |= {"model_config": self.model["config"], "tokenizer": str(self.folder("tokenizer"))}
        return values


def _mapping(file: Path, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TrainingError(f"{file.name}: {name}: must be a mapping of keys")
    return value


def _require_known(file: Path, prefix: str, given: Mapping[str, Any], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise TrainingError(f"{file.name}: {prefix}{name}: unknown key; known are {', '.join(sorted(known))}")


def _names(kind: type[Options]) -> set[str]:
    found = set()
    for name, info in kind.model_fields.items():
        choices = info.validation_alias
        found |= set(map(str, choices.choices)) if isinstance(choices, AliasChoices) else {info.alias or name}
    return found


def _problem(problem: Any, where: str, kind: type[Options]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: {name}: unknown option; known are {', '.join(sorted(_names(kind)))}"
        case "missing":
            return f"{where}: {name}: missing; it must be given"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {name} is {problem['input']!r}: {problem['msg']}"


STAGE_OF_COMMAND: dict[str, str] = {"tokenizer": "tokenizer", "pretrain": "pretraining", "sft": "sft"}
COMMANDS: dict[str, type[Options]] = {
    "tokenizer": TokenizerOptions,
    "pretrain": PretrainOptions,
    "sft": SFTOptions,
    "generate": GenerateOptions,
    "eval": EvalOptions,
    "export": ExportOptions,
}


def command_options(command: str, config: Path | None, given: Mapping[str, Any]) -> Any:
    """The options of a command: from its section of the config file, if one is given, and the command line."""
    if config is None:
        return build_options(COMMANDS[command], given, where=command)
    run = RunConfig.load(config)
    if command in STAGE_OF_COMMAND:
        return run.stage(STAGE_OF_COMMAND[command], given)
    kind = COMMANDS[command]
    inference = {**run.sections.get("inference", {}), "model_name_or_path": run.trained_model}
    shared = {**run.shared, **(inference if command == "generate" else {})}
    values = {name: value for name, value in shared.items() if name in _names(kind)}
    return build_options(kind, {**values, **given}, where=f"{config.name}: {command}")
