"""Load a checkpoint folder, or a hub id, as a model that is ready to denoise or to train.

Weights are read from safetensors with this project's own classes: no pickle, no remote code. Missing or unexpected
tensors are errors, since half-loaded weights generate fluent nonsense.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llada_core.checkpoint.adapter import AdaptedWeights, Adapter
from llada_core.checkpoint.decision_temperature import read_decision_temperature
from llada_core.checkpoint.folder import resolve_folder
from llada_core.checkpoint.generation_config import read_generation_config
from llada_core.checkpoint.placement import Placement
from llada_core.checkpoint.weights import CheckpointWeights
from llada_core.errors import InvalidParameterError, UnsupportedCheckpointError
from llada_core.files import read_json
from llada_core.model.backends.cpu import CPUMaskPredictor, Quantization
from llada_core.model.backends.host_memory import total_memory
from llada_core.model.config import ModelConfig
from llada_core.model.interface import MaskPredictor
from llada_core.model.published_sampler import PublishedSampler
from llada_core.model.registry import find_architecture
from llada_core.text.chat_template import ChatTemplate
from llada_core.text.special_tokens import PublishedTokens, SpecialTokens, resolve_special_tokens
from llada_core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llada_core.model.network import Network

DEMO_FOLDER = Path(__file__).parents[1] / "demo"

# Takes the share of the weights that has been read.
OnProgress = Callable[[float], None]


def load_model(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    quantization: Quantization = "none",
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> MaskPredictor:
    """Load a mask predictor for inference; on a CPU its weights are laid out for oneDNN.

    Args:
        path: a folder with config.json and safetensors (one file, or an index with shards), or a Hugging Face id.
        device: `cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the best one available.
        dtype: `float32`, `bfloat16`, `float16`, or `auto`: float32 on a CPU, the checkpoint's own on an accelerator,
            bfloat16 around quantised weights.
        quantization: `int8` quantises the linear maps while loading; CPU only.
        adapter: a LoRA adapter's folder, merged into the weights while these are read.

    Raises:
        UnsupportedCheckpointError: an unknown architecture, an unimplemented field, missing or unexpected tensors.
        FileNotFoundError: no such folder, or no config.json in it.
        InvalidParameterError: an unknown device, dtype or quantization, or a combination that is not supported.
    """
    placement = Placement.of(device, dtype, quantization)
    return Checkpoint.open(path, revision=revision, adapter=adapter).load_model(placement)


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    revision: str | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> "Network":
    """Load a checkpoint as the trainable network; arguments and errors are those of `load_model`."""
    placement = Placement.of(device, dtype)
    return Checkpoint.open(path, revision=revision, adapter=adapter).load_network(placement)


def load_tokenizer(
    path: str | os.PathLike[str], *, revision: str | None = None, chat_template: ChatTemplate | None = None
) -> Tokenizer | None:
    """Load the folder's tokenizer; None if it has none (token ids can still be served).

    Args:
        chat_template: replaces LLaDA's own chat format, or the template that the checkpoint of a relative has.
    """
    folder = resolve_folder(path, revision=revision)
    fields = read_json(folder / "config.json")
    return read_tokenizer(folder, find_architecture(fields), fields.get("vocab_size"), chat_template)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder from which everything but the weights has been read.

    Attributes:
        sampler: the published sampler, with the checkpoint's own defaults.
        decision_temperature: divides the logits of a decision's answers.
    """

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer | None
    special_tokens: SpecialTokens
    sampler: PublishedSampler
    decision_temperature: float = 1.0
    adapter: Adapter | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        chat_template: ChatTemplate | None = None,
        adapter: str | os.PathLike[str] | None = None,
        with_weights: bool = True,
    ) -> "Checkpoint":
        """Find the folder and read its config, tokenizer and special tokens.

        Args:
            chat_template: replaces LLaDA's own chat format.
            adapter: a LoRA adapter's folder, whose updates are merged into the weights.
            with_weights: False leaves the weights of a hub id on the hub.

        Raises:
            UnsupportedCheckpointError: an unknown architecture, an unimplemented field, no mask or EOS id, a
                decision_temperature or a default of the sampler outside its range; an adapter that is not plain LoRA,
                or not one of this model.
            FileNotFoundError: no such folder, or no config.json in it.
        """
        folder = resolve_folder(path, revision=revision, with_weights=with_weights)
        fields = read_json(folder / "config.json")
        architecture = find_architecture(fields)
        config: ModelConfig = architecture.from_dict(fields)
        tokenizer = read_tokenizer(folder, architecture, config.shape.vocab_size, chat_template)
        special_tokens = resolve_special_tokens(
            folder, fields, tokenizer.token_to_id if tokenizer else lambda _token: None, architecture.published_tokens
        )
        updates = None if adapter is None else Adapter(Path(adapter))
        if updates is not None:
            updates.check(config.tensor_shapes())
        sampler = config.shape.sampler.of_checkpoint(read_generation_config(folder))
        temperature = read_decision_temperature(folder)
        return cls(folder, config, tokenizer, special_tokens, sampler, temperature, updates)

    def load_model(self, placement: Placement, *, on_progress: OnProgress | None = None) -> MaskPredictor:
        """Read the weights, for inference.

        Args:
            on_progress: called after each tensor with the share of the weights that has been read, at most 1.
        """
        if placement.device.type != "cpu":
            return self.load_network(placement, on_progress=on_progress).eval().requires_grad_(False)
        read = self._reader(on_progress)
        self._require_memory(placement)
        tensor_name = self.config.describe().names.tensor
        model = CPUMaskPredictor(
            self.config,
            self.special_tokens,
            lambda role, depth: read(tensor_name(role, depth)),
            dtype=placement.dtype_for(self.config),
            quantization=placement.quantization,
        )
        model.shape = replace(model.shape, sampler=self.sampler)
        return model

    def load_network(self, placement: Placement, *, on_progress: OnProgress | None = None) -> "Network":
        """Read the weights into the trainable network; arguments as `load_model`.

        Raises:
            InvalidParameterError: quantised weights, which the network cannot have.
        """
        if placement.quantization != "none":
            raise InvalidParameterError(
                f"quantization is {placement.quantization!r}; it must be none for a network", "quantization"
            )
        read = self._reader(on_progress)
        if placement.device.type == "cpu":
            self._require_memory(placement)
        dtype = placement.dtype_for(self.config)
        # Imported here: inference on a CPU needs none of it.
        from llada_core.model.network import Network

        with torch.device("meta"):
            network = Network(self.config)
        # Always copy: weights that are trained must not be views of a mapped file.
        state = {name: read(name).to(placement.device, dtype, copy=True) for name in self.config.tensor_shapes()}
        network.load_state_dict(state, assign=True)
        network.special_tokens = self.special_tokens
        network.shape = replace(network.shape, sampler=self.sampler)
        return network

    def _reader(self, on_progress: OnProgress | None) -> Callable[[str], Tensor]:
        """Check the files' tensors, and return the function that reads one of them by its name."""
        shapes = self.config.tensor_shapes()
        stored = CheckpointWeights(self.folder)
        stored.unstack(self.config.describe().stacks())
        stored.check(shapes)
        weights = AdaptedWeights(stored, self.adapter)
        total = sum(map(prod, shapes.values()))
        num_read = 0

        def read(name: str) -> Tensor:
            nonlocal num_read
            tensor = weights.read(name)
            num_read += tensor.numel()
            if on_progress is not None:
                # A head that is the embedding is read twice.
                on_progress(min(1.0, num_read / total))
            return tensor

        return read

    def _require_memory(self, placement: Placement) -> None:
        """Refuse weights that cannot be in this machine's memory: the system would end the process half-way."""
        is_int8 = placement.quantization == "int8"
        bytes_each = 1 if is_int8 else placement.dtype_for(self.config).itemsize
        needed = bytes_each * sum(prod(shape) for shape in self.config.tensor_shapes().values())
        if needed > (total := total_memory()):
            raise UnsupportedCheckpointError(
                f"{self.folder}: the weights take {needed / 1e9:,.1f} GB, and this machine has {total / 1e9:,.1f} GB "
                "of memory; choose a smaller dtype or quantization"
            )


def read_tokenizer(
    folder: Path,
    architecture: type[ModelConfig],
    vocab_size: int | None = None,
    chat_template: ChatTemplate | None = None,
) -> Tokenizer | None:
    """Read the tokenizer in a folder, with the chat format of an architecture; None if there is none."""
    if not (folder / "tokenizer.json").exists():
        return None
    published = architecture.published_tokens
    if not architecture.has_own_chat_format:
        published, own_template = _read_chat_settings(folder, published)
        chat_template = chat_template or own_template
    return Tokenizer.from_folder(folder, vocab_size=vocab_size, chat_template=chat_template, published=published)


def _read_chat_settings(folder: Path, published: PublishedTokens) -> tuple[PublishedTokens, ChatTemplate | None]:
    """Return the special tokens with those that the checkpoint's template writes, and the template, if it has one."""
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.exists() else {}
    bos, eos = (_token_text(settings.get(f"{name}_token")) for name in ("bos", "eos"))
    published = replace(published, bos=bos or published.bos, eos=eos or published.eos)
    separate = folder / "chat_template.jinja"
    source = settings.get("chat_template")
    if not isinstance(source, str | None):
        raise UnsupportedCheckpointError(f"{file}: chat_template is {short(source)}; it must be a text")
    try:
        if separate.exists():
            return published, ChatTemplate.from_file(separate)
        return published, None if source is None else ChatTemplate(source)
    except ValueError as error:
        raise UnsupportedCheckpointError(f"{folder}: {error}") from None


def _token_text(token: object) -> str | None:
    """Return the text of a token in `tokenizer_config.json`, which is a text or an object that holds it."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
