"""A model and its tokenizer in one object, for scripts and notebooks."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from llada_core.checkpoint.load import DEMO_FOLDER, Checkpoint
from llada_core.checkpoint.placement import Placement
from llada_core.errors import InvalidParameterError
from llada_core.model.backends.cpu import Quantization
from llada_core.sampling.generate import GenerationResult, Prompt, generate
from llada_core.text.tokenizer import Message


class LLM:
    """Loads a checkpoint once and generates with it: `LLM().chat("What is the capital of France?")`.

    Attributes:
        model, tokenizer: for `generate`, `denoise` and everything else in `llada_core`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEMO_FOLDER,
        *,
        device: str = "auto",
        dtype: str = "auto",
        quantization: Quantization = "none",
        revision: str | None = None,
        adapter: str | os.PathLike[str] | None = None,
    ) -> None:
        """Load a folder or a hub id, by default the bundled demo model; arguments and errors as `load_model`."""
        checkpoint = Checkpoint.open(path, revision=revision, adapter=adapter)
        self.model = checkpoint.load_model(Placement.of(device, dtype, quantization))
        self.tokenizer = checkpoint.tokenizer

    def generate(self, prompts: Prompt | Sequence[Prompt], **settings: Any) -> list[GenerationResult]:
        """Continue one prompt or a list of them; settings as those of `generate`."""
        return generate(self.model, prompts, tokenizer=self.tokenizer, **settings)

    def chat(self, messages: str | Sequence[Message] | Sequence[Mapping[str, str]], **settings: Any) -> str:
        """Reply to a user's text or to a conversation; settings as those of `generate`.

        Raises:
            InvalidParameterError: the checkpoint has no tokenizer.
        """
        if self.tokenizer is None:
            raise InvalidParameterError("messages is text; this checkpoint's folder has no tokenizer", "messages")
        conversation = [Message("user", messages)] if isinstance(messages, str) else messages
        (result,) = generate(self.model, [conversation], tokenizer=self.tokenizer, **settings)
        return result.text or ""
