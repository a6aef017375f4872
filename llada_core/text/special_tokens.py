"""Special tokens: the ids with a meaning of their own, resolved once when a checkpoint is loaded."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from llada_core.errors import InvalidParameterError, UnsupportedCheckpointError
from llada_core.files import read_json

MASK_TOKEN = "<|mdm_mask|>"
BOS_TOKEN = "<|startoftext|>"
EOS_TOKEN = "<|endoftext|>"
EOT_TOKEN = "<|eot_id|>"
START_HEADER_TOKEN = "<|start_header_id|>"
END_HEADER_TOKEN = "<|end_header_id|>"

# The ids of LLaDA-8B and LLaDA-1.5. The Base tokenizer does not register the last three, but reserves their ids.
PUBLISHED_VOCAB_SIZE = 126464
PUBLISHED_IDS = {
    BOS_TOKEN: 126080,
    EOS_TOKEN: 126081,
    MASK_TOKEN: 126336,
    START_HEADER_TOKEN: 126346,
    END_HEADER_TOKEN: 126347,
    EOT_TOKEN: 126348,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTokens:
    """The special tokens of an architecture's published checkpoints.

    Attributes:
        bos, eos, eot, mask: how the tokenizer writes them; None where that is not known, or where there is none.
        vocab_size: the vocabulary for which `ids` hold.
        ids: the ids of tokens that a checkpoint's own files may not name.
    """

    mask: str
    bos: str | None = None
    eos: str | None = None
    eot: str | None = None
    vocab_size: int
    ids: Mapping[str, int]


# Ids that end a text in a list of them; files name two or three, some of them twice.
_MOST_LISTED = 8

LLADA_TOKENS = PublishedTokens(
    mask=MASK_TOKEN,
    bos=BOS_TOKEN,
    eos=EOS_TOKEN,
    eot=EOT_TOKEN,
    vocab_size=PUBLISHED_VOCAB_SIZE,
    ids=PUBLISHED_IDS,
)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids that the sampler treats specially. A checkpoint need not have an end-of-turn token."""

    mask_id: int
    eos_id: int
    eot_id: int | None

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset({self.eos_id} if self.eot_id is None else {self.eos_id, self.eot_id})

    def require_no_mask(self, ids: Collection[int], field: str, hint: str = "") -> None:
        """Check that no id is the mask.

        Args:
            field: where the user gave the ids.
            hint: follows the rule in the error.

        Raises:
            InvalidParameterError: names the field and the mask id.
        """
        if self.mask_id in ids:
            raise InvalidParameterError(
                f"{field} holds {self.mask_id}, the mask id; it must hold tokens only{hint}", field
            )


def resolve_special_tokens(
    folder: Path,
    config: dict[str, Any],
    token_to_id: Callable[[str], int | None],
    published: PublishedTokens = LLADA_TOKENS,
) -> SpecialTokens:
    """Find the special ids of a checkpoint: `generation_config.json`, `config.json`, tokenizer, then the published ids.

    The published ids hold for one vocabulary size only. The first source that names an id takes precedence. Of several
    EOS ids in a list, as transformers allow, EOS is the one that the tokenizer calls so, or the first; the other, EoT.

    Raises:
        UnsupportedCheckpointError: no source names the mask or the EOS id, or one lists more than EOS and EoT.
    """
    generation_file = folder / "generation_config.json"
    generation = read_json(generation_file) if generation_file.exists() else {}

    def find(field: str, token: str | None) -> Any:
        stated = (source.get(field) for source in (generation, config))
        return next((value for value in stated if value is not None), None if token is None else id_of(token))

    def id_of(token: str) -> int | None:
        is_published = config["vocab_size"] == published.vocab_size
        known = token_to_id(token)
        return published.ids.get(token) if known is None and is_published else known

    mask_id = find("mask_token_id", published.mask)
    eos_id = find("eos_token_id", published.eos)
    eot_id = find("eot_token_id", published.eot)
    if isinstance(eos_id, list) and eos_id:
        eos_id, eot_id = _two_ends(eos_id, eot_id, eos_of_tokenizer=published.eos and id_of(published.eos))
    for name, value in (("mask_token_id", mask_id), ("eos_token_id", eos_id), ("eot_token_id", eot_id)):
        is_id = type(value) is int and 0 <= value < config["vocab_size"]
        if not is_id and not (name == "eot_token_id" and value is None):
            raise UnsupportedCheckpointError(
                f"{folder.name}: {name} is {short(value)}; generation_config.json, config.json or the tokenizer must "
                f"name an id below vocab_size ({config['vocab_size']})"
            )
    assert mask_id is not None
    assert eos_id is not None
    if mask_id in (eos_id, eot_id):
        raise UnsupportedCheckpointError(
            f"{folder.name}: mask_token_id is {mask_id}; it must differ from eos_token_id and eot_token_id"
        )
    return SpecialTokens(mask_id, eos_id, eot_id)


def _two_ends(listed: list[Any], eot_id: Any, *, eos_of_tokenizer: Any) -> tuple[Any, Any]:
    """Return the EOS and EoT ids of a list of ids that end a text; the list itself as EOS if it holds others."""
    if len(listed) > _MOST_LISTED:
        return listed, eot_id
    candidates = [one for one in listed if one != eot_id] or [eos_of_tokenizer]
    eos_id = eos_of_tokenizer if eos_of_tokenizer in candidates else candidates[0]
    others = [one for one in candidates if one != eos_id]
    if not others:
        return eos_id, eot_id
    is_pair = eot_id is None and all(one == others[0] for one in others)
    return (eos_id, others[0]) if is_pair else (listed, eot_id)
