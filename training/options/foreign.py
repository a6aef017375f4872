"""Options as other trainers call them, and what they are called here: shown to whoever types one."""

from collections.abc import Iterable
from difflib import get_close_matches

_FOREIGN = {
    "base_model": "model_name_or_path",
    "batch": "batch_size",
    "bf16": "dtype bfloat16",
    "block_size": "max_length",
    "checkpoint_steps": "save_steps",
    "cutoff_len": "max_length",
    "data_path": "train_data_path",
    "dataset": "train_data_path",
    "dataset_name": "train_data_path",
    "datasets": "train_data_path",
    "deepspeed": "strategy fsdp (under torchrun)",
    "do_eval": "val_data_path",
    "early_stopping_patience": "early_stopping",
    "ema": "ema_decay",
    "epochs": "num_epochs",
    "epsilon": "clip",
    "eval_batch_size": "eval_samples (they are scored one by one)",
    "eval_dataset": "val_data_path",
    "eval_file": "val_data_path",
    "finetuning_type": "lora_r (for LoRA; without it all weights are trained)",
    "fp32": "dtype float32",
    "fsdp": "strategy fsdp (under torchrun)",
    "gradient_accumulation_steps": "micro_batch_size (the rest of batch_size is accumulated)",
    "gradient_checkpointing": "activation_checkpointing",
    "init_from": "model_name_or_path",
    "learning_rate_schedule": "lr_schedule",
    "log_interval": "log_steps",
    "load_in_4bit": "base_dtype nf4",
    "load_in_8bit": "base_dtype int8",
    "logging_steps": "log_steps",
    "lora_rank": "lora_r",
    "lora_target": "lora_target_modules",
    "loss_type": "loss",
    "lr": "learning_rate",
    "lr_scheduler": "lr_schedule",
    "lr_scheduler_type": "lr_schedule",
    "max_completion_length": "gen_length",
    "max_grad_norm": "gradient_clip",
    "max_iters": "max_steps",
    "max_new_tokens": "gen_length",
    "max_seq_len": "max_length",
    "max_seq_length": "max_length",
    "micro_batch": "micro_batch_size",
    "min_lr": "min_lr_ratio (a share of the learning rate)",
    "model": "model_name_or_path",
    "model_max_length": "max_length",
    "n_epochs": "num_epochs",
    "num_generations": "group_size",
    "num_iterations": "updates",
    "num_train_epochs": "num_epochs",
    "optim": "optimizer",
    "out_dir": "output_dir",
    "output": "output_dir",
    "overwrite_output_dir": "output_dir (a new one; or resume to continue)",
    "per_device_train_batch_size": "micro_batch_size (batch_size counts the samples of a whole optimizer step)",
    "patience": "early_stopping",
    "pretrained_model_name_or_path": "model_name_or_path",
    "pref_beta": "beta",
    "pref_loss": "loss",
    "quantization": "base_dtype",
    "quantization_bit": "base_dtype (nf4 has 4 bits, int8 has 8)",
    "r": "lora_r",
    "rank": "lora_r",
    "ref_model": "model_name_or_path (what a run starts from is what it compares with)",
    "report_to": "wandb_project (TensorBoard files are always written)",
    "resume_adapter": "adapter",
    "resume_from_checkpoint": "resume, or resume_from STEP",
    "reward_funcs": "reward",
    "reward_weights": "reward WEIGHT*REWARD",
    "save_total_limit": "keep_last",
    "seq_length": "max_length",
    "sequence_len": "max_length",
    "target_modules": "lora_target_modules",
    "test_size": "val_size",
    "tokenizer_name": "tokenizer",
    "tokenizer_path": "tokenizer",
    "train_batch_size": "batch_size",
    "train_dataset": "train_data_path",
    "train_file": "train_data_path",
    "train_steps": "max_steps",
    "trainable_token_indices": "train_tokens (the tokens themselves)",
    "training_steps": "max_steps",
    "use_lora": "lora_r",
    "val_set_size": "val_size",
    "valid_data_path": "val_data_path",
    "validation_file": "val_data_path",
    "validation_split": "val_size",
    "wandb": "wandb_project",
    "warmup_ratio": "warmup_steps (a tenth of the run at most, if not given)",
}


def hint(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """What a name that a command does not have may mean, as the end of a sentence; empty if there is no idea.

    Args:
        known: the command's own names, with underscores.
        prefix: put before our names, `--` on a command line.
    """
    name, known = name.lstrip("-").replace("-", "_"), list(known)
    if name in _FOREIGN and _FOREIGN[name].split(" ")[0].rstrip(",") in known:
        return f"here it is {prefix}{_spelled(_FOREIGN[name], prefix)}"
    close = get_close_matches(name, known, n=1, cutoff=0.75)
    return f"did you mean {prefix}{_spelled(close[0], prefix)}?" if close else ""


def _spelled(text: str, prefix: str) -> str:
    """Our name as a command line or a file writes it; an explanation after it stays as it is."""
    name, separator, rest = text.partition(" ")
    return (name.replace("_", "-") if prefix else name) + separator + rest
