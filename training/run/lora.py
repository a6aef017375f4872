"""Low-rank adapters (LoRA, arXiv:2106.09685), put into a model in place with `peft`."""

from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer

from llada_core.model.architectures.llada.network import LLaDAModelLM
from training.options.fields import LoraParams

_ADAPTER = "default"


def add_adapters(model: LLaDAModelLM, params: LoraParams, *, seed: int) -> None:
    """Freeze the model and add float32 adapters, whose output is zero at first, to its blocks."""
    torch.manual_seed(seed)
    model.requires_grad_(False)
    LoraModel(model, _config(params), _ADAPTER)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def merge_adapters(model: LLaDAModelLM) -> None:
    """Merge the adapters into the weights they adapt and remove them, which leaves a plain LLaDA model."""
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model.requires_grad_(False)


def adapter_weights(model: LLaDAModelLM) -> dict[str, torch.Tensor]:
    """The adapters' tensors, by the names that `peft` gives them in a file."""
    return {
        f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def adapter_config(params: LoraParams, base_model: str) -> dict[str, Any]:
    """The content of `adapter_config.json`, for loading the adapters with `peft`."""
    config = _config(params)
    config.base_model_name_or_path = base_model
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}


def _config(params: LoraParams) -> LoraConfig:
    return LoraConfig(r=params.r, lora_alpha=params.alpha, target_modules=params.pattern, bias="none")
