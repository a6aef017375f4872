"""One YAML file for a whole run, and how its keys and the command line's become the options of a stage.

    output_dir: out                 # stages write out/tokenizer, base, instruct, preferred, …
    seed: 0                         # top-level keys are defaults for every stage that has such an option
    model: {config: config.json, max_length: 512}         # or name_or_path: a checkpoint to start from
    tokenizer: {train_data_path: [text.jsonl], vocab_size: 4096}
    pretraining: {train_data_path: [text.jsonl], max_steps: 1000, batch_size: 32}
    sft: {train_data_path: [chats.jsonl], max_steps: 500}
    dpo: {train_data_path: [pairs.jsonl], max_steps: 100}
    grpo: {train_data_path: [questions.jsonl], reward: [exact], max_steps: 100}
    distill: {train_data_path: [answers.jsonl], max_steps: 100}
    inference: {default_method: semi_autoregressive_padding, gen_length: 128}
    evaluation: {val_data_path: [val.jsonl]}
    calibration: {decisions: [questions.jsonl]}

A section takes every option of its command; the command line takes precedence. A run's own `run.yaml` is such a file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from training.errors import TrainingError
from training.options.foreign import hint
from training.options.sections import (
    FOLDERS,
    MODEL_STAGES,
    SECTION_OF_COMMAND,
    SECTIONS,
    TRAINING_STAGES,
    option_names,
)
from training.options.validation import build_options, check_options

# A key replaces these keys of the layers below it: another stage's output, the top of the file, the section.
_REPLACES = {
    "model_config": ("model_name_or_path",),
    "model_name_or_path": ("model_config", "tokenizer"),
    "max_steps": ("num_epochs",),
    "num_epochs": ("max_steps",),
    "prompt": ("input", "output"),
    "input": ("prompt",),
    "adapter": ("checkpoint",),
    "val_data_path": ("decisions",),
    "decisions": ("val_data_path",),
}
_MODEL_KEYS = {"name_or_path", "config", "max_length"}


def command_options(command: str, config: Path | None, command_line: Mapping[str, Any]) -> Any:
    """The options of a command, from its section of the config file, if there is a file, and the command line."""
    section = SECTION_OF_COMMAND[command]
    if config is None:
        return build_options(SECTIONS[section], command_line, where=command)
    return RunConfig.load(config, command_line=command_line).stage(section, command_line)


@dataclass(frozen=True)
class RunConfig:
    """A parsed config file."""

    file: Path
    output_dir: Path
    model: dict[str, Any]
    sections: dict[str, dict[str, Any]]
    shared: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path, *, command_line: Mapping[str, Any] | None = None) -> "RunConfig":
        """Read the file and validate every section, whichever stage will run.

        Args:
            command_line: the options of a single command, which may complete its section; None for a pipeline.

        Raises:
            TrainingError: not YAML, an unknown section or key, a value that breaks its rule.
        """
        content = _read(file)
        sections = {stage: _mapping(file, stage, content.pop(stage)) for stage in SECTIONS if stage in content}
        model = _model(file, content.pop("model", {}))
        content.pop("provenance", None)  # a run's own note in its run.yaml
        output_dir = content.pop("output_dir", None)
        if command_line is not None and output_dir is None:
            # A single command needs no folder for the stages, where its own is given.
            own = [section["output_dir"] for section in sections.values() if "output_dir" in section]
            output_dir = str(command_line["output_dir"]) if "output_dir" in command_line else next(iter(own), None)
        if not isinstance(output_dir, str):
            raise TrainingError(f"{file.name}: output_dir: needs a folder")
        if "inference" in sections and "default_method" in sections["inference"]:
            sections["inference"]["method"] = sections["inference"].pop("default_method")
        _require_known(file, "", content, {name for kind in SECTIONS.values() for name in option_names(kind)})
        config = cls(file, Path(output_dir), model, sections, content)
        for name in sections:
            # A pipeline has nothing but the file to take a training stage's options from.
            config._check(name, may_be_incomplete=command_line is not None or name not in TRAINING_STAGES)
        return config

    @property
    def stages(self) -> list[str]:
        """The training stages that the file has, in their order."""
        return [stage for stage in TRAINING_STAGES if stage in self.sections]

    @property
    def trained_model(self) -> str | None:
        """The model for inference: the last one that the file's stages make, or the one they would start from."""
        last = self._model_before(None)
        return self.model.get("name_or_path") if last is None else str(self.folder(last))

    def stage(self, stage: str, overrides: Mapping[str, Any] | None = None) -> Any:
        """The options of one stage: what other stages give it, shared keys, its section, then `overrides`."""
        values = self._values(stage, overrides or {})
        return build_options(SECTIONS[stage], values, where=f"{self.file.name}: {stage}")

    def folder(self, stage: str) -> Path:
        """The folder that a stage writes."""
        return Path(self.sections.get(stage, {}).get("output_dir", self.output_dir / FOLDERS[stage]))

    def within(self, folder: Path) -> "RunConfig":
        """The same config, with everything written into `folder`."""
        sections = {
            name: {key: value for key, value in section.items() if key != "output_dir"}
            for name, section in self.sections.items()
        }
        return replace(self, output_dir=folder, sections=sections)

    def can_start(self, stage: str) -> bool:
        """Whether the previous stage has written everything that this one takes from it."""
        values = self._values(stage, {})
        inputs = {"model_name_or_path": "config.json", "tokenizer": "tokenizer.json"}
        before = TRAINING_STAGES[: TRAINING_STAGES.index(stage)]
        return all(
            (self.folder(earlier) / file).exists()
            for name, file in inputs.items()
            for earlier in before
            if name in values and Path(values[name]).resolve() == self.folder(earlier).resolve()
        )

    def _check(self, section: str, *, may_be_incomplete: bool) -> None:
        output_dir = self.sections[section].get("output_dir", "")
        if not isinstance(output_dir, str):
            raise TrainingError(f"{self.file.name}: {section}: output_dir is {output_dir!r}: must be a folder")
        check_options(
            SECTIONS[section],
            self._values(section, {}),
            where=f"{self.file.name}: {section}",
            may_be_incomplete=may_be_incomplete,
        )

    def _values(self, stage: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        names = option_names(SECTIONS[stage])
        shared = {name: value for name, value in self.shared.items() if name in names}
        values: dict[str, Any] = {}
        for layer in (self._from_other_stages(stage), shared, self.sections.get(stage, {}), overrides):
            for name in layer:
                for replaced in _REPLACES.get(name, ()):
                    values.pop(replaced, None)
            values |= layer
        return values

    def _from_other_stages(self, stage: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if stage in ("inference", "evaluation", "calibration", "export") and self.trained_model is not None:
            values["checkpoint" if stage == "export" else "model_name_or_path"] = self.trained_model
        if stage in TRAINING_STAGES:
            values["output_dir"] = str(self.folder(stage))
        if stage in (*MODEL_STAGES, "evaluation") and "max_length" in self.model:
            values["max_length"] = self.model["max_length"]
        if stage in MODEL_STAGES:
            values |= self._start_of(stage)
        return values

    def _model_before(self, stage: str | None) -> str | None:
        """The last stage of the file that makes a model before `stage`, or at all."""
        before = MODEL_STAGES if stage is None else MODEL_STAGES[: MODEL_STAGES.index(stage)]
        return next((name for name in reversed(before) if name in self.sections), None)

    def _start_of(self, stage: str) -> dict[str, Any]:
        if (before := self._model_before(stage)) is not None:
            return {"model_name_or_path": str(self.folder(before))}
        if "name_or_path" in self.model:
            return {"model_name_or_path": self.model["name_or_path"]}
        if "config" in self.model and stage == "pretraining":
            return {"model_config": self.model["config"], "tokenizer": str(self.folder("tokenizer"))}
        return {}


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainingError(f"--config: {file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise TrainingError(f"{file.name}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise TrainingError(f"{file.name}: must be a mapping of sections and keys")
    return content


def _model(file: Path, value: object) -> dict[str, Any]:
    model = _mapping(file, "model", value)
    _require_known(file, "model.", model, _MODEL_KEYS)
    if "config" in model and "name_or_path" in model:
        raise TrainingError(f"{file.name}: model: give either config (random weights) or name_or_path (a checkpoint)")
    return model


def _mapping(file: Path, name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TrainingError(f"{file.name}: {name}: must be a mapping of keys")
    return value


def _require_known(file: Path, prefix: str, values: Mapping[str, Any], known: set[str]) -> None:
    for name in values:
        if name not in known:
            meant = hint(name, known)
            raise TrainingError(
                f"{file.name}: {prefix}{name}: unknown key; {meant or 'known are ' + ', '.join(sorted(known))}"
            )
