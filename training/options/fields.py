"""Every option of `llada-train`, defined once: the command line and the YAML config are both made from these classes.

Names follow the field's usage and the config files that LLaDA users already have; a field's description is its
`--help`. Lengths are in tokens, sizes in samples, and a step is an optimizer step. A class has one attribute per
option, however many a command has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from llada_core.decisions.orders import MOST_ORDERS
from llada_core.sampling.params import (
    PRESETS,
    RANDOM_REMASKING,
    Cache,
    EndThinking,
    GenerationParams,
    Method,
    Preset,
    Remasking,
    ScheduleName,
    preset_settings,
)
from training.rewards import parse_rewards


@dataclass(frozen=True, slots=True)
class LoraParams:
    """Low-rank adapters: rank `r`, output scaled by `alpha` / `r`, on the linear layers `targets` of every block.

    Attributes:
        token_ids: tokens whose rows in the embedding and the head are trained too.
    """

    r: int
    alpha: int
    targets: tuple[str, ...]
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RandomWeights:
    """A model to start from that has never been trained: its config and its tokenizer's folder."""

    config_file: Path
    tokenizer: Path


class Options(BaseModel):
    """The options of a command. Unknown names are errors; nothing is guessed from a misspelt key."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object, info: ValidationInfo) -> object:
        """Accept a single path or prompt without brackets."""
        assert info.field_name is not None
        is_list = get_origin(cls.model_fields[info.field_name].annotation) is list
        return [value] if is_list and isinstance(value, str) else value


class DataOptions(Options):
    """The options of commands that read training data."""

    columns: list[str] = Field(
        [], description="NAME=COLUMN: where the data has what a format calls NAME; several with commas."
    )
    max_bad_lines: int = Field(0, ge=0, description="Lines that may be unusable before the run stops.")

    @property
    def column_names(self) -> dict[str, str]:
        """The data's column by the format's name for it."""
        return dict(pair.split("=", 1) for pairs in self.columns for pair in pairs.split(","))

    @field_validator("columns", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        """Accept a mapping, as YAML files have it."""
        return [f"{name}={column}" for name, column in value.items()] if isinstance(value, dict) else value

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, value: list[str]) -> list[str]:
        pairs = [pair for pairs in value for pair in pairs.split(",")]
        names = [pair.split("=", 1)[0] for pair in pairs]
        for pair in pairs:
            name, equals, column = pair.partition("=")
            if not (name and equals and column):
                raise ValueError(f"{pair!r}; each must be NAME=COLUMN, for example prompt=question")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is given twice")
        return value


class TokenizerOptions(DataOptions):
    """The options of `tokenizer`."""

    train_data_path: list[str] = Field(
        min_length=1,
        description="JSON lines, JSON or parquet file (.gz, .zst, …), glob, or hub dataset id; may be repeated.",
    )
    output_dir: Path = Field(description="Folder for tokenizer.json.")
    vocab_size: int = Field(4096, ge=300, description="Tokens, special ones included.")

    @property
    def data_paths(self) -> list[str]:
        """All data that the command reads."""
        return self.train_data_path


class TrainingOptions(DataOptions):
    """The options that all stages of training share.

    Attributes:
        usual_warmup_steps: warm-up steps of a run that is long enough.
        trains_on_answers: samples are a model's answers, which are denoised in blocks whatever the model attends to.
    """

    usual_warmup_steps: ClassVar[int]
    trains_on_answers: ClassVar[bool] = False

    model_name_or_path: str | None = Field(None, description="Start from this checkpoint: a folder or a hub id.")
    train_data_path: list[str] = Field(
        min_length=1,
        description="JSON lines, JSON or parquet file (.gz, .zst, …), glob, or hub dataset id; may be repeated. "
        "PATH=0.3 gives it this share of every batch.",
    )
    val_data_path: list[str] = Field([], description="The same for validation; without it there is no validation.")
    val_size: float | None = Field(
        None, gt=0, description="Instead of --val-data-path: training records to hold out, or below 1 their share."
    )
    output_dir: Path = Field(description="Folder for the finished model, which can be served, and for checkpoints.")
    data_cache_dir: Path | None = Field(
        None, description="Folder for tokenised data, which runs may share; OUTPUT/data if not given."
    )
    streaming: bool = Field(
        False, description="Tokenise the data while training, a part at a time: for what does not fit on the disk."
    )
    max_length: int | None = Field(
        None, ge=8, description="Tokens of a sample; what the model has positions for, at most 4096, if not given."
    )

    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; or give --num-epochs.")
    num_epochs: float | None = Field(None, gt=0, description="Passes over the data; sets --max-steps.")
    batch_size: int = Field(32, ge=1, description="Samples of an optimizer step, over all processes.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Samples that a process computes at once, accumulating gradients; its whole share if not given.",
    )
    learning_rate: float = Field(gt=0, description="Peak learning rate.")
    lr_schedule: Literal["wsd", "cosine"] = Field("wsd", description="Warm-up, constant, linear decay; or cosine.")
    warmup_steps: int | None = Field(
        None, ge=0, description="Steps of linear warm-up; 2000 in pre-training, else 50, at most a tenth of the run."
    )
    decay_fraction: float = Field(0.1, ge=0, le=1, description="Share of the steps in which wsd decays.")
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="Final learning rate, as a share of the peak.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW's weight decay, applied to matrices only.")
    gradient_clip: float = Field(1.0, gt=0, description="Maximum gradient norm.")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Average the weights with this factor a step (0.999 is usual); validate and write the average.",
    )
    group_by_length: bool = Field(
        False,
        description="Batch samples of similar length: faster, but leaves little EOS padding for SFT to learn from.",
    )
    stratified_noise: bool = Field(
        False, description="Spread the noise levels of a batch evenly over (0, 1): the loss varies less."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of initial weights, data order and noise.")

    device: str = Field("auto", description="cpu, cuda or auto; under torchrun each process uses its own GPU.")
    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Dtype of the computation; weights and optimizer stay float32."
    )
    strategy: Literal["ddp", "fsdp"] = Field("ddp", description="Under torchrun: replicate the model, or shard it.")
    activation_checkpointing: bool = Field(False, description="Recompute blocks in backward: less memory, more time.")
    threads: int | None = Field(None, ge=1, description="CPU threads per process; all cores if not given.")
    optimizer: Literal["adamw", "adamw_8bit", "muon"] = Field(
        "adamw",
        description="adamw_8bit keeps AdamW's two moments in 8 bits; muon updates the blocks' matrices by Muon.",
    )
    lora_r: int | None = Field(None, ge=1, description="Train low-rank adapters of this rank instead of all weights.")
    lora_alpha: int = Field(32, gt=0, description="Adapters are scaled by this / r.")
    lora_target_modules: list[str] = Field(
        [], description="Names of the linear layers of a block to adapt; all of them if not given."
    )
    adapter: Path | None = Field(
        None,
        description="Go on training these adapters (a folder of peft's), which decide --lora-* and --train-tokens.",
    )
    train_tokens: list[str] = Field(
        [],
        description="With --lora-r: a token whose embedding is trained too, as one that was added; may be repeated.",
    )
    adapter_only: bool = Field(False, description="Write adapter/ alone, without the model that has it merged.")
    base_dtype: Literal["int8", "nf4"] | None = Field(
        None, description="Keep the frozen base of adapters in 8 or 4 bits instead of --dtype."
    )

    save_steps: int = Field(500, ge=1, description="Steps between checkpoints.")
    keep_last: int = Field(
        2, ge=1, description="Newest checkpoints to keep, besides the one with the best validation loss."
    )
    resume: bool = Field(False, description="Continue from the newest checkpoint in the output folder.")
    resume_from: int | None = Field(
        None, ge=1, description="Continue from this step's checkpoint; later ones are deleted when the next is saved."
    )
    log_steps: int = Field(10, ge=1, description="Steps between two lines of metrics.jsonl.")
    eval_steps: int | None = Field(
        None,
        ge=1,
        description="Steps between validations; --save-steps if not given. The best is chosen among those saved.",
    )
    eval_samples: int = Field(200, ge=1, description="Validation samples to score, spread over the data.")
    early_stopping: int | None = Field(
        None,
        ge=1,
        description="End after this many validations in a row without a lower loss, and write the best checkpoint.",
    )
    eval_prompt: list[str] = Field(
        [], description="Prompt to answer at each validation, as a chat except in pre-training; may be repeated."
    )
    eval_gen_length: int = Field(64, ge=1, description="Length of these answers, in tokens.")
    wandb_project: str | None = Field(None, description="Report to this project of Weights & Biases too.")
    block_length: int | None = Field(
        None, ge=1, description="Positions of a block, for models that attend block by block; the model's if not given."
    )

    @property
    def data_paths(self) -> list[str]:
        """All data that the command reads."""
        return [*self.train_data_path, *self.val_data_path]

    @property
    def has_validation(self) -> bool:
        """Whether the run has data to validate with."""
        return bool(self.val_data_path) or self.val_size is not None

    @property
    def data_dir(self) -> Path:
        """The folder of the tokenised data."""
        return self.data_cache_dir or self.output_dir / "data"

    @property
    def continues(self) -> bool:
        """Whether the run goes on from a checkpoint in its output folder."""
        return self.resume or self.resume_from is not None

    @property
    def random_weights(self) -> RandomWeights | None:
        """The untrained model to start from; None for the checkpoint `model_name_or_path`."""
        return None

    @property
    def lora(self) -> LoraParams | None:
        """The adapters to train; None to train all weights."""
        if self.lora_r is None:
            return None
        return LoraParams(self.lora_r, self.lora_alpha, tuple(self.lora_target_modules))

    @model_validator(mode="after")
    def _check(self) -> "TrainingOptions":
        if (self.max_steps is None) == (self.num_epochs is None):
            raise ValueError("give either max_steps or num_epochs")
        if self.streaming and (self.num_epochs is not None or self.val_size is not None):
            raise ValueError(
                "streaming: how much data there is shows at its end; give max_steps, not num_epochs, and "
                "val_data_path, not val_size"
            )
        if self.val_size is not None and self.val_data_path:
            raise ValueError("give either val_data_path or val_size")
        if self.val_size is not None and self.val_size >= 1 and self.val_size % 1:
            raise ValueError(f"val_size is {self.val_size}; above 1 it is a number of records and must be whole")
        idle = [name for name in ("early_stopping", "eval_steps") if getattr(self, name) is not None]
        if idle and not self.has_validation and not (idle == ["eval_steps"] and self.eval_prompt):
            raise ValueError(f"{', '.join(idle)}: without val_data_path or val_size there is no validation")
        of_lora = {"lora_r", "lora_alpha", "lora_target_modules"} & self.model_fields_set
        of_lora |= {"train_tokens"} if self.train_tokens else set()
        if self.adapter is not None and of_lora:
            raise ValueError(f"{', '.join(sorted(of_lora))}: the adapters that training goes on with decide this")
        of_adapters = of_lora - {"lora_r"} | {name for name in ("adapter_only", "base_dtype") if getattr(self, name)}
        if of_adapters and self.lora_r is None and self.adapter is None:
            raise ValueError(f"{', '.join(sorted(of_adapters))}: without lora_r or adapter all weights are trained")
        if self.base_dtype is not None and self.strategy == "fsdp":
            raise ValueError("base_dtype: a base in 8 or 4 bits is replicated, not sharded; choose strategy ddp")
        return self


class DenoisingOptions(TrainingOptions):
    """What pre-training and SFT share: how the tokens of a sample are masked."""

    min_mask_ratio: float | None = Field(
        None, gt=0, le=1, description="Least probability with which a sample's targets are masked; as published."
    )
    max_mask_ratio: float | None = Field(
        None, gt=0, le=1, description="Greatest probability with which a sample's targets are masked; as published."
    )


class PretrainOptions(DenoisingOptions):
    """The options of `pretrain`, which starts from random weights or a checkpoint."""

    usual_warmup_steps: ClassVar[int] = 2000

    model_config_file: Path | None = Field(
        None, alias="model_config", description="Start from random weights of this config.json (official names)."
    )
    tokenizer: Path | None = Field(None, description="Folder with tokenizer.json; needed with --model-config.")
    learning_rate: float = Field(4e-4, gt=0, description="Peak learning rate.")
    loss_norm: Literal["token", "sequence"] = Field(
        "token", description="What has equal weight: every token of a batch, or every sample."
    )
    attend_across_documents: bool = Field(
        True, description="Whether packed documents attend to one another; LLaDA's do."
    )

    @property
    def random_weights(self) -> RandomWeights | None:
        """See `TrainingOptions`."""
        if self.model_config_file is None or self.tokenizer is None:
            return None
        return RandomWeights(self.model_config_file, self.tokenizer)

    @model_validator(mode="after")
    def _check_start(self) -> "PretrainOptions":
        if (self.model_name_or_path is None) == (self.model_config_file is None):
            raise ValueError("give either model_name_or_path (a checkpoint) or model_config (random weights)")
        if self.model_config_file is not None and self.tokenizer is None:
            raise ValueError("tokenizer: needed with model_config")
        if self.model_name_or_path is not None and self.tokenizer is not None:
            raise ValueError("tokenizer: a checkpoint has its own; give it only with model_config")
        of_adapters = [name for name in ("lora_r", "adapter") if getattr(self, name) is not None]
        if self.model_config_file is not None and of_adapters:
            raise ValueError(f"{of_adapters[0]}: adapters need a trained model; give model_name_or_path")
        return self


class SFTOptions(DenoisingOptions):
    """The options of `sft`, which starts from a checkpoint."""

    usual_warmup_steps: ClassVar[int] = 50

    model_name_or_path: str = Field(description="Start from this checkpoint: a folder or a hub id.")
    learning_rate: float = Field(2.5e-5, gt=0, description="Peak learning rate.")
    loss_norm: Literal["token", "sequence"] = Field(
        "sequence", description="What has equal weight: every token of a batch, or every sample."
    )
    overlong: Literal["drop", "truncate"] = Field("drop", description="What happens to samples over --max-length.")
    train_on: Literal["all", "last"] = Field(
        "all", description="Assistant turns that are targets; a turn's own weight, loss or train decides for it."
    )
    allow_empty_answers: bool = Field(
        False, description="Train assistant turns without text, which otherwise are bad lines."
    )
    pad_to: int | None = Field(
        None, ge=8, description="Pad one batch in three further with EOS, to a random length up to this."
    )


class DPOOptions(TrainingOptions):
    """The options of `dpo`, which starts from a checkpoint and compares with it."""

    usual_warmup_steps: ClassVar[int] = 50

    model_name_or_path: str = Field(description="Start from this checkpoint and compare with it: a folder or a hub id.")
    learning_rate: float = Field(5e-7, gt=0, description="Peak learning rate; for adapters, ten times as much or more.")
    beta: float = Field(0.2, gt=0, description="How strongly the model is held to its start.")
    loss: Literal["dpo", "ipo"] = Field(
        "dpo", description="dpo: the chosen answer should be likelier; ipo: by 1 / (2 beta) nats and no more."
    )
    rpo_alpha: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Weight of the chosen answer's own loss per token, added to the pair's.",
    )
    mc_num: int = Field(
        8, ge=1, description="Masks drawn for each answer; more of them mean less variance, memory and time grow alike."
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of a prompt with an answer; what the model has positions for, at most 4096, if not given.",
    )
    overlong: Literal["drop", "truncate"] = Field(
        "drop", description="What happens to pairs of which an answer is over --max-length."
    )
    allow_empty_answers: bool = Field(
        False, description="Compare answers without text too, which otherwise are bad lines."
    )
    group_by_length: bool = Field(False, description="Batch pairs of similar length.")
    stratified_noise: bool = Field(
        False, description="Spread the noise levels of an answer's masks evenly over (0, 1): the estimate varies less."
    )


class SamplingOptions(Options):
    """How answers are sampled: the settings of `GenerationParams` without the seed; the defaults are the server's."""

    method: Method = Field("semi_autoregressive_padding", description="How blocks follow one another.")
    gen_length: int = Field(128, ge=1, description="Positions of the response.")
    steps: int | None = Field(None, ge=1, description="Denoising steps; one per position if not given.")
    steps_per_block: int | None = Field(
        None,
        ge=1,
        description="Denoising steps of every block, instead of --steps; of a block-causal model also beside a "
        "parallel rule.",
    )
    schedule: ScheduleName | None = Field(
        None, description="How many tokens each step of a block commits; the model's own schedule if not given."
    )
    eps: float | None = Field(
        None, gt=0, lt=1, description="Time at which the schedule timestep ends; 0.001 if not given."
    )
    block_length: int | None = Field(
        None,
        ge=1,
        description="Positions of a block; the model's if not given, or all of them under the schedule timestep.",
    )
    temperature: float = Field(
        0.0, ge=0, description="Temperature of the Gumbel noise; 0 takes the most probable token."
    )
    top_k: int = Field(0, ge=0, description="Draw only from this many most probable tokens; 0 draws from all.")
    top_p: float = Field(1.0, ge=0, le=1, description="Draw only from the nucleus of this probability.")
    cfg_scale: float = Field(0.0, ge=0, description="Classifier-free guidance; doubles the work.")
    logit_bias: list[str] = Field([], description="ID=BIAS, added to the logit of a token; may be repeated.")
    end_thinking: str | None = Field(
        None, description="iLLaDA: IDS:BOOST:POWER, as in 27,91:100:3, which boosts the tokens that close the thinking."
    )
    logits_eos_inf: bool = Field(False, description="Never generate EOS.")
    confidence_eos_eot_inf: bool = Field(False, description="Commit EOS and EoT last.")
    ignore_eos: bool = Field(False, description="EOS and EoT do not end the text.")
    eos_early_stop: bool = Field(
        False, description="Block-causal models: end the text before the block of its EOS is finished."
    )
    min_tokens: int = Field(0, ge=0, description="Number of tokens before which nothing ends the text.")
    stop: list[str] = Field([], description="String before which the text ends; may be repeated.")
    stop_token_ids: list[int] = Field([], description="Id of a further token that ends the text; may be repeated.")
    remasking: Remasking = Field("low_confidence", description="Score by which a step decides which proposals to keep.")
    remasking_temperature: float = Field(
        0.0, ge=0, description="Above 0: draw which proposals to keep, in proportion to exp(score / temperature)."
    )
    preset: Preset = Field("exact", description="Bundle of speed settings; an option given with it takes precedence.")
    confidence_threshold: float | None = Field(
        None, gt=0, le=1, description="Parallel decoding: commit the tokens that reach this probability."
    )
    confidence_factor: float | None = Field(
        None, gt=0, description="Parallel decoding: commit the n-th best token if it reaches 1 - factor / (n + 1)."
    )
    entropy_bound: float | None = Field(
        None, ge=0, description="Parallel decoding: bound on the summed entropy of the tokens committed together."
    )
    entropy_threshold: float | None = Field(
        None, ge=0, description="Parallel decoding: commit the tokens of at most this entropy, in nats."
    )
    min_transfer: int | None = Field(
        None, ge=1, description="Block-causal models: the fewest tokens that a step of a parallel rule commits; 1."
    )
    editing_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Block-causal models: replace a written token of the active block if another is more probable.",
    )
    max_post_steps: int | None = Field(
        None, ge=0, description="The most steps in which a block without masks is edited; 16 if not given."
    )
    active_blocks: int = Field(1, ge=1, description="The most blocks that a parallel rule fills at once.")
    cache: Cache = Field("none", description="Approximate KV cache.")
    cache_refresh_interval: int | None = Field(
        None, ge=1, description="Steps of a block between refreshes of its cache; once per block if not given."
    )
    suffix_window: int | None = Field(
        None, ge=0, description="Masked positions right of the active blocks that the model sees; all if not given."
    )

    def generation_params(self, *, seed: int) -> GenerationParams:
        """The settings as the sampler takes them, with the preset's where none is given.

        Raises:
            ValueError: a setting breaks a rule; the message names it.
        """
        names = {field.name for field in fields(GenerationParams)} & SamplingOptions.model_fields.keys()
        values = self.model_dump(include=names)
        convert: dict[str, Callable[[Any], Any]] = {
            "stop": tuple,
            "stop_token_ids": frozenset,
            "logit_bias": _biases,
            "end_thinking": _end_thinking,
        }
        values |= {name: convert[name](values[name]) for name in convert}
        return GenerationParams(**values, seed=seed)

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        """Write out the settings of the preset, so that a run's own `run.yaml` has them all."""
        if not isinstance(values, dict) or values.get("preset") not in PRESETS:
            return values
        return preset_settings(values["preset"], values)

    @model_validator(mode="after")
    def _check_sampling(self) -> "SamplingOptions":
        self.generation_params(seed=0)
        return self


class GRPOOptions(SamplingOptions, TrainingOptions):
    """The options of `grpo`, which starts from a checkpoint, lets it answer, and rewards its answers."""

    usual_warmup_steps: ClassVar[int] = 50
    trains_on_answers: ClassVar[bool] = True

    model_name_or_path: str = Field(
        description="Start from this checkpoint and be held to it by --beta: a folder or a hub id."
    )
    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate; for adapters, ten times as much or more.")
    batch_size: int = Field(8, ge=1, description="Prompts of an optimizer step, over all processes.")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Prompts whose answers a process trains on at once, accumulating gradients; its whole share if "
        "not given. As many answers, at most 32, are written at once.",
    )
    reward: list[str] = Field(
        min_length=1,
        description="exact, regex:PATTERN, format:PATTERN, length, or a function module:name; WEIGHT*REWARD weighs it; "
        "may be repeated.",
    )
    group_size: int = Field(8, ge=2, description="Answers to each prompt, which are compared with each other.")
    updates: int = Field(1, ge=1, description="Optimizer steps on the same answers.")
    estimator: Literal["coupled", "one_step"] = Field(
        "coupled",
        description="Log-probabilities from a mask and its complement, or in one step from the fully masked answer.",
    )
    prompt_masking: float = Field(
        0.0, ge=0, lt=1, description="Probability with which a token of the prompt is masked for them."
    )
    beta: float = Field(0.04, ge=0, description="Weight of the divergence from the start; 0 needs no reference.")
    clip: float = Field(0.2, gt=0, lt=1, description="With --updates: how far a token's ratio may move from 1.")
    scale_rewards: bool = Field(True, description="Divide advantages by the standard deviation of their group.")
    gen_length: int = Field(128, ge=1, description="Positions of an answer.")
    temperature: float = Field(
        1.0, ge=0, description="Temperature of the Gumbel noise, which makes the answers to a prompt differ."
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of a prompt and its answer; what the model has positions for, at most 4096, if not given.",
    )
    group_by_length: bool = Field(False, description="Batch prompts of similar length.")
    save_steps: int = Field(100, ge=1, description="Steps between checkpoints.")
    eval_samples: int = Field(200, ge=1, description="Validation prompts to answer greedily, spread over the data.")

    @field_validator("reward")
    @classmethod
    def _check_rewards(cls, value: list[str]) -> list[str]:
        parse_rewards(value)
        return value

    @model_validator(mode="after")
    def _check_exploration(self) -> "GRPOOptions":
        if self.temperature == 0 and self.remasking not in RANDOM_REMASKING:
            raise ValueError("temperature is 0; it must be above, or all answers to a prompt are the same")
        if self.stratified_noise:
            raise ValueError("stratified_noise: there are no noise levels to spread; leave it out")
        return self


class DistillOptions(TrainingOptions):
    """The options of `distill`, which starts from a checkpoint and learns from its recorded answers."""

    usual_warmup_steps: ClassVar[int] = 50
    trains_on_answers: ClassVar[bool] = True

    model_name_or_path: str = Field(
        description="Start from this checkpoint, which wrote the answers: a folder or a hub id."
    )
    train_data_path: list[str] = Field(
        min_length=1,
        description="Answers recorded by `generate --trajectory` or a client of /v1/denoise: file, glob, or hub "
        "dataset id; may be repeated. PATH=0.3 gives it this share of every batch.",
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate.")
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens of a prompt and its canvas; what the model has positions for, at most 4096, if not given.",
    )
    block_length: int | None = Field(
        None, ge=1, description="Positions of a block, as the answers were written; 32 or the model's if not given."
    )
    entropy_weight: float = Field(
        2.0, ge=0, description="Weight of the entropy where the best guess is right, beside the cross-entropy."
    )
    entropy_temperature: float = Field(
        0.5, gt=0, description="Temperature of the distribution whose entropy is lowered."
    )
    group_by_length: bool = Field(False, description="Batch answers of similar length.")


class GenerateOptions(SamplingOptions):
    """The options of `generate`; the defaults are the server's."""

    model_name_or_path: str = Field(description="Checkpoint: a folder or a hub id.")
    prompt: list[str] = Field([], description="Prompt; may be repeated.")
    input: Path | None = Field(
        None, description='JSONL file with {"prompt"} or {"messages"} on each line, instead of --prompt.'
    )
    output: Path | None = Field(
        None, description="JSONL file to append results to; those it already has are not generated again."
    )
    trajectory: bool = Field(
        False, description="Write into --output also which step committed each token: what `distill` learns from."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all noise.")
    is_instruct: bool = Field(
        True, description="Put the prompt into the chat template; --no-is-instruct for a base model."
    )
    device: str = Field("auto", description="cpu, cuda or auto.")
    batch_size: int = Field(16, ge=1, description="Prompts of --input to denoise together.")


class DecisionOptions(DataOptions):
    """The options of commands that ask a model labelled questions."""

    model_name_or_path: str = Field(description="Checkpoint: a folder or a hub id.")
    decisions: list[str] = Field(
        [],
        description="Labelled questions: JSON lines, JSON or parquet file, glob, or hub dataset id; may be repeated.",
    )
    order_averages: int = Field(
        2, ge=1, le=MOST_ORDERS, description="With --decisions: orders of the options over which is averaged."
    )
    device: str = Field("auto", description="cpu, cuda or auto.")


class EvalOptions(DecisionOptions):
    """The options of `eval`."""

    val_data_path: list[str] = Field(
        [],
        description="JSON lines, JSON or parquet file (.gz, .zst, …), glob, or hub dataset id; may be repeated.",
    )
    max_length: int | None = Field(
        None, ge=8, description="Tokens of a sample; longer dialogues are left out. The model's maximum, if not given."
    )
    eval_samples: int = Field(1000, ge=1, description="Samples to score, spread over the data.")
    noise_levels: int = Field(
        16, ge=1, description="Points of the grid over (0, 1); more points mean less variance and more time."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the masks; the same seed gives the same number.")
    json_output: bool = Field(False, alias="json", description="Print one JSON object, with all digits.")


class CalibrateOptions(DecisionOptions):
    """The options of `calibrate`."""

    model_name_or_path: str = Field(description="Checkpoint: a folder, whose generation_config.json is written.")
    decisions: list[str] = Field(
        min_length=1,
        description="Labelled questions: JSON lines, JSON or parquet file, glob, or hub dataset id; may be repeated.",
    )


class ExportOptions(Options):
    """The options of `export`."""

    checkpoint: Path | None = Field(
        None, description="A checkpoints/step-<n> folder, or an output folder, whose newest one is taken."
    )
    adapter: Path | None = Field(
        None, description="Instead of --checkpoint: a LoRA adapter's folder in peft's format, merged into its base."
    )
    output_dir: Path = Field(description="The Hugging Face folder to write; must be empty or missing.")
    adapter_only: bool = Field(False, description="With LoRA: write adapter/ alone, without the merged model.")
    base_model: str | None = Field(
        None, description="With LoRA: the base model's folder or hub id; the one it was trained on, if not given."
    )
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="Dtype of the written weights.")

    @model_validator(mode="after")
    def _check(self) -> "ExportOptions":
        if (self.checkpoint is None) == (self.adapter is None):
            raise ValueError("give either checkpoint or adapter")
        if self.adapter_only and self.adapter is not None:
            raise ValueError(f"adapter_only: {self.adapter} is an adapter alone already; leave this out to merge it")
        return self


def _biases(pairs: Sequence[str]) -> dict[int, float]:
    try:
        return {int(token_id): float(bias) for token_id, bias in (pair.split("=") for pair in pairs)}
    except ValueError:
        raise ValueError(f"logit_bias is {', '.join(pairs)}; it must be ID=BIAS, as in 42=-1.5") from None


def _end_thinking(text: str | None) -> EndThinking | None:
    """Read IDS:BOOST:POWER."""
    if text is None:
        return None
    try:
        ids, boost, power = text.split(":")
        return EndThinking(tuple(int(part) for part in ids.split(",")), boost=float(boost), power=float(power))
    except ValueError as error:
        raise ValueError(f"end_thinking is {text}; it must be IDS:BOOST:POWER, as in 27,91:100:3") from error
