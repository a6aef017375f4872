"""One YAML file for a whole run, and how its keys and the command line's become the options of a stage.

    output_dir: out                 # stages write out/tokenizer, out/base, out/instruct and feed each other
    seed: 0                         # top-level keys are defaults for every stage that has such an option
    model: {config: config.json, max_length: 512}         # or name_or_path: a checkpoint to start from
    tokenizer: {train_data_path: [text.jsonl], vocab_size: 4096}
    pretraining: {train_data_path: [text.jsonl], max_steps: 1000, batch_size: 32}
    sft: {train_data_path: [chats.jsonl], max_steps: 500}
    inference: {default_method: semi_autoregressive_padding, gen_length: 128}
    evaluation: {val_data_path: [val.jsonl]}

A section takes every option of its command; what the command line gives wins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from training.errors import TrainingError
from training.options.fields import (
    EvalOptions,
    ExportOptions,
    GenerateOptions,
    Options,
    PretrainOptions,
    SFTOptions,
    TokenizerOptions,
)

# Section of the file → the options it may hold; each is also a command.
SECTIONS: dict[str, type[Options]] = {
    "tokenizer": TokenizerOptions,
    "pretraining": PretrainOptions,
    "sft": SFTOptions,
    "inference": GenerateOptions,
    "evaluation": EvalOptions,
    "export": ExportOptions,
}
SECTION_OF_COMMAND = {
    "tokenizer": "tokenizer",
    "pretrain": "pretraining",
    "sft": "sft",
    "generate": "inference",
    "eval": "evaluation",
    "export": "export",
}

# Sections that `pipeline` runs from the file alone, in this order, and the folders they write in `output_dir`.
TRAINING_STAGES = ("tokenizer", "pretraining", "sft")
_FOLDERS = {"tokenizer": "tokenizer", "pretraining": "base", "sft": "instruct"}

# Each takes the place of those after it that come from further away: another stage, the top of the file, its section.
_REPLACES = {
    "model_config": ("model_name_or_path",),
    "model_name_or_path": ("model_config", "tokenizer"),
    "max_steps": ("num_epochs",),
    "num_epochs": ("max_steps",),
    "prompt": ("input", "output"),
    "input": ("prompt",),
}
_MODEL_KEYS = {"name_or_path", "config", "max_length"}

OptionsT = TypeVar("OptionsT", bound=Options)


def build_options(kind: type[OptionsT], values: Mapping[str, Any], *, where: str) -> OptionsT:
    """Validate; the error names place, key, value and rule.

    Raises:
        TrainingError: an unknown key, or a value that breaks its rule.
    """
    _raise_if_any(_problems(kind, values), where, kind)
    return kind.model_validate(dict(values))


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
        sections = {stage: _mapping(file, stage, content.pop(stage)) for stage in SECTIONS if stage in content}
        model = _mapping(file, "model", content.pop("model", {}))
        output_dir = content.pop("output_dir", None)
        if not isinstance(output_dir, str):
            raise TrainingError(f"{file.name}: output_dir: needs a folder")
        _require_known(file, "model.", model, _MODEL_KEYS)
        if "config" in model and "name_or_path" in model:
            raise TrainingError(
                f"{file.name}: model: give either config (random weights) or name_or_path (a checkpoint)"
            )
        if "inference" in sections and "default_method" in sections["inference"]:
            sections["inference"]["method"] = sections["inference"].pop("default_method")
        _require_known(file, "", content, {name for kind in SECTIONS.values() for name in _names(kind)})
        config = cls(file, Path(output_dir), model, sections, content)
        for name, section in sections.items():
            if not isinstance(section.get("output_dir", ""), str):
                raise TrainingError(f"{file.name}: {name}: output_dir is {section['output_dir']!r}: must be a folder")
            config.check(name)
        return config

    def check(self, section: str) -> None:
        """Validate what a section says; what it leaves to the command line is not missed."""
        problems = _problems(SECTIONS[section], self._values(section, {}))
        problems = [problem for problem in problems if problem["type"] != "missing" or section in TRAINING_STAGES]
        _raise_if_any(problems, f"{self.file.name}: {section}", SECTIONS[section])

    def stage(self, stage: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """The options of one stage: what other stages give it, shared keys, its section, then `overrides`."""
        values = self._values(stage, overrides or {})
        return build_options(SECTIONS[stage], values, where=f"{self.file.name}: {stage}")

    def _values(self, stage: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        known = _names(SECTIONS[stage])
        shared = {name: value for name, value in self.shared.items() if name in known}
        values: dict[str, Any] = {}
        for layer in (self._from_other_stages(stage), shared, self.sections.get(stage, {}), overrides):
            for given in layer:
                for replaced in _REPLACES.get(given, ()):
                    values.pop(replaced, None)
            values |= layer
        return values

    @property
    def stages(self) -> list[str]:
        """The training stages that the file has, in their order."""
        return [stage for stage in TRAINING_STAGES if stage in self.sections]

    def folder(self, stage: str) -> Path:
        """Where a stage writes."""
        return Path(self.sections.get(stage, {}).get("output_dir", self.output_dir / _FOLDERS[stage]))

    def within(self, folder: Path) -> "RunConfig":
        """The same, with everything written into `folder`."""
        sections = {
            name: {key: value for key, value in section.items() if key != "output_dir"}
            for name, section in self.sections.items()
        }
        return replace(self, output_dir=folder, sections=sections)

    def can_start(self, stage: str) -> bool:
        """Whether what a stage takes from the one before is there."""
        values = self._values(stage, {})
        made = {"model_name_or_path": ("pretraining", "config.json"), "tokenizer": ("tokenizer", "tokenizer.json")}
        return all(
            (self.folder(before) / file).exists()
            for name, (before, file) in made.items()
            if name in values and Path(values[name]).resolve() == self.folder(before).resolve()
        )

    @property
    def trained_model(self) -> str | None:
        """What inference runs: the last model that the file's stages make, or the one they would start from."""
        for stage in ("sft", "pretraining"):
            if stage in self.sections:
                return str(self.folder(stage))
        return self.model.get("name_or_path")

    def _from_other_stages(self, stage: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if stage in ("inference", "evaluation", "export") and self.trained_model is not None:
            values["checkpoint" if stage == "export" else "model_name_or_path"] = self.trained_model
        if stage in TRAINING_STAGES:
            values["output_dir"] = str(self.folder(stage))
        if stage in ("pretraining", "sft", "evaluation") and "max_length" in self.model:
            values["max_length"] = self.model["max_length"]
        if stage not in ("pretraining", "sft"):
            return values
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
    return {info.alias or name for name, info in kind.model_fields.items()}


def _problems(kind: type[Options], values: Mapping[str, Any]) -> list[Any]:
    try:
        kind.model_validate(dict(values))
    except ValidationError as error:
        return list(error.errors())
    return []


def _raise_if_any(problems: Sequence[Any], where: str, kind: type[Options]) -> None:
    if problems:
        raise TrainingError("; ".join(_problem(problem, where, kind) for problem in problems))


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


def command_options(command: str, config: Path | None, given: Mapping[str, Any]) -> Any:
    """The options of a command: from its section of the config file, if one is given, and the command line."""
    section = SECTION_OF_COMMAND[command]
    if config is None:
        return build_options(SECTIONS[section], given, where=command)
    return RunConfig.load(config).stage(section, given)
