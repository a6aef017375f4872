"""The sampler that a model's authors published, as far as it differs from LLaDA's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from reprlib import repr as short
from typing import Any

from llada_core.errors import UnsupportedCheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSetting:
    """A field of `generation_config.json` that a published sampler reads.

    Attributes:
        setting: the field of `GenerationParams` that means the same.
        least, most: the limits of a number.
        is_whole: the number is a count.
        names: the values that a text may have, and what they are called here; empty for a number.
    """

    setting: str
    least: float = 0.0
    most: float = 1e6
    is_whole: bool = False
    names: Mapping[str, str] = field(default_factory=dict)

    def read(self, name: str, value: object) -> object:
        """Return the setting's value.

        Args:
            name: the field's name, for messages.

        Raises:
            UnsupportedCheckpointError: a value that the published sampler does not take.
        """
        if self.names:
            if isinstance(value, str) and value in self.names:
                return self.names[value]
            rule = f"one of {', '.join(self.names)}"
        else:
            if type(value) in ((int,) if self.is_whole else (int, float)) and self.least <= value <= self.most:  # type: ignore[operator]
                return value
            rule = f"a {'whole ' if self.is_whole else ''}number from {self.least:g} to {self.most:g}"
        raise UnsupportedCheckpointError(f"generation_config.json: {name} is {short(value)}; it must be {rule}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSampler:
    """What a model's sampler does where a request says nothing, and what no request can say.

    Attributes:
        family: the model's name in messages.
        schedule: the schedule of a request that names none.
        defaults: other settings that differ from LLaDA's where a request names none.
        scores_drawn: `remasking` scores the distribution from which tokens are drawn, after temperature, top-k and
            top-p; otherwise the model's own.
        confidence_threshold, steps_per_block: the settings of a request that names neither steps, a schedule nor a
            parallel rule; None where it gets a fixed number of steps.
        settings: the settings that only some samplers know, and this one does.
        reads: the fields of a checkpoint's `generation_config.json` that it reads.
    """

    family: str = "LLaDA"
    schedule: str = "uniform"
    defaults: Mapping[str, Any] = field(default_factory=dict, hash=False)
    scores_drawn: bool = False
    confidence_threshold: float | None = None
    steps_per_block: int | None = None
    settings: frozenset[str] = frozenset()
    reads: Mapping[str, PublishedSetting] = field(default_factory=dict, hash=False)

    def of_checkpoint(self, generation_config: Mapping[str, Any]) -> "PublishedSampler":
        """Return the sampler with the defaults that a checkpoint's `generation_config.json` states.

        Raises:
            UnsupportedCheckpointError: a value that the published sampler does not take.
        """
        stated = {
            setting.setting: setting.read(name, generation_config[name])
            for name, setting in self.reads.items()
            if generation_config.get(name) is not None
        }
        return replace(self, defaults={**self.defaults, **stated})

    def block_by_block(self) -> "PublishedSampler":
        """Return the sampler with what block-causal attention brings along: an exact cache, and settings of blocks."""
        return replace(self, defaults={**_BLOCK_DEFAULTS, **self.defaults}, settings=self.settings | _BLOCK_SETTINGS)


# Settings that the samplers of block-causal models know.
_BLOCK_SETTINGS = frozenset({"min_transfer", "editing_threshold", "max_post_steps", "eos_early_stop"})
# They see nothing right of a block, and a finished one's keys and values never change.
_BLOCK_DEFAULTS: Mapping[str, Any] = {"cache": "exact", "suffix_window": None}

LLADA_SAMPLER = PublishedSampler()
