"""Low-rank adapters (LoRA, arXiv:2106.09685), put into a model in place with `peft`."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from torch import nn

from llada_core.checkpoint.adapter import Adapter
from llada_core.model.config import ModelConfig
from llada_core.model.network import Network
from training.options.fields import LoraParams
from training.run.token_rows import TokenRows, merge_rows, train_rows

_ADAPTER = "default"


def add_adapters(model: Network, params: LoraParams, *, seed: int) -> None:
    """Freeze the model and add float32 adapters, whose output is zero at first, to its blocks, and rows of tokens."""
    torch.manual_seed(seed)
    model.requires_grad_(False)
    LoraModel(model, _config(model, params), _ADAPTER)
    if params.token_ids:
        train_rows(model, params.token_ids)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def load_adapters(model: Network, folder: Path) -> None:
    """Read adapters of the same rank and for the same layers as the model's, in place."""
    adapter = Adapter(folder)
    for name, module in model.named_modules():
        if isinstance(module, TokenRows):
            module.rows.data.copy_(adapter.rows[f"{name}.weight"].rows)
        if isinstance(module, LoraLayer):
            update = adapter.updates[f"{name}.weight"]
            for side, tensor in ((module.lora_A, update.down), (module.lora_B, update.up)):
                side.get_parameter(f"{_ADAPTER}.weight").data.copy_(tensor)


def adapters_alone(config: ModelConfig, params: LoraParams) -> Network:
    """A model whose adapters and buffers are allocated, and whose other weights are on the meta device."""
    with torch.device("meta"):
        model = Network(config)
        add_adapters(model, params, seed=0)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.requires_grad:
                setattr(module, name, nn.Parameter(torch.empty_like(parameter, device="cpu")))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.empty_like(buffer, device="cpu"))
    return model


def merge_adapters(model: Network) -> None:
    """Merge the adapters into the weights they adapt and remove them, which leaves a plain model."""
    adapted = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    merge_rows(model)
    model.requires_grad_(False)


def adapter_weights(model: Network) -> dict[str, torch.Tensor]:
    """The adapters' tensors, and rows of tokens, by the names that `peft` gives them in a file."""
    rows = {
        f"base_model.model.{name}.token_adapter.trainable_tokens_delta": module.rows.detach().clone()
        for name, module in model.named_modules()
        if isinstance(module, TokenRows)
    }
    return rows | {
        f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }


def adapter_config(model: Network, params: LoraParams, base_model: str) -> dict[str, Any]:
    """The content of `adapter_config.json`, for loading the model's adapters with `peft`."""
    config = _config(model, params)
    config.base_model_name_or_path = base_model
    if params.token_ids:
        names = [name for name, module in model.named_modules() if isinstance(module, TokenRows)]
        config.trainable_token_indices = {name: list(params.token_ids) for name in names}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}


def _config(model: Network, params: LoraParams) -> LoraConfig:
    pattern = model.config.describe().adapter_pattern(params.targets)
    return LoraConfig(r=params.r, lora_alpha=params.alpha, target_modules=pattern, bias="none")
