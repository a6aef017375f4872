"""The labels of options: short texts that are one token each, so that one mask can hold any answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from string import ascii_lowercase, ascii_uppercase

from llada_core.errors import InvalidParameterError
from llada_core.text.tokenizer import Tokenizer

MOST_LABELS = 255


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels that a vocabulary has: A to Z, a to z, then AA, AB … ZZ, those of them that are a single token.

    Attributes:
        texts: at most 255 labels, in the order in which a list of options uses them.
        token_ids: the token of each.
    """

    texts: tuple[str, ...]
    token_ids: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Labels":
        """Find the labels of a vocabulary."""
        candidates = list(_candidates())
        encoded = tokenizer.encode_batch(candidates)
        # A text that is not in the vocabulary can become the token for unknown text, which stands for many texts.
        single = {
            ids[0]: text
            for text, ids in zip(candidates, encoded, strict=True)
            if len(ids) == 1 and tokenizer.decode(ids).strip() == text
        }
        found = list(single.items())[:MOST_LABELS]
        return cls(tuple(text for _, text in found), tuple(token_id for token_id, _ in found))

    def __len__(self) -> int:
        return len(self.texts)

    def require(self, num_options: int, place: str) -> None:
        """Check that there is a label for every option.

        Args:
            place: the path of the options in what the user gave; its first part is the field.

        Raises:
            InvalidParameterError: names the place, the number and the limit.
        """
        if num_options > len(self):
            raise InvalidParameterError(
                f"{place} has {num_options} entries; it must have at most {len(self)}, one for each label that is a "
                "single token of this model's vocabulary",
                place.partition(".")[0],
            )


def _candidates() -> Iterator[str]:
    yield from ascii_uppercase
    yield from ascii_lowercase
    for first, second in product(ascii_uppercase, repeat=2):
        yield first + second
