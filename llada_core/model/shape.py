"""The properties of a model that the code around it depends on."""

from collections.abc import Iterable
from dataclasses import dataclass

from llada_core.errors import InvalidParameterError
from llada_core.model.published_sampler import LLADA_SAMPLER, PublishedSampler
from llada_core.model.published_training import LLADA_TRAINING, PublishedTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What every architecture has, whatever its config calls it.

    Attributes:
        num_layers, num_key_value_heads, head_dim: the size of a KV cache.
        vocab_size: token ids are below it.
        max_sequence_length: the longest canvas, prompt included.
        predicts_next: a token is predicted from the output at the position before it.
        block_length: attention is block-causal, by default in blocks of this length; None if every position sees all.
        sampler: in what its published sampler differs from LLaDA's.
        training: in what its published training differs from LLaDA's.
    """

    num_layers: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_sequence_length: int
    predicts_next: bool = False
    block_length: int | None = None
    sampler: PublishedSampler = LLADA_SAMPLER
    training: PublishedTraining = LLADA_TRAINING

    def require_full_attention(self, purpose: str, field: str = "model") -> None:
        """Check that every position sees all others.

        Args:
            purpose: what would be computed, for the error.
            field: where the user asked for it.

        Raises:
            InvalidParameterError: attention is block-causal; names the field and the model.
        """
        if self.block_length is not None:
            raise InvalidParameterError(
                f"{field}: the model attends block by block, as {self.sampler.family} does; it must be one whose "
                f"positions see all others for {purpose}",
                field,
            )

    def require_token_ids(self, ids: Iterable[int], field: str) -> None:
        """Check that every id is in the vocabulary.

        Raises:
            InvalidParameterError: an id outside it; `field` names where the user gave the id.
        """
        for token_id in ids:
            if not 0 <= token_id < self.vocab_size:
                raise InvalidParameterError(
                    f"{field} holds the token id {token_id}; ids must be from 0 to {self.vocab_size - 1}", field
                )
