"""The proposals of a step, which cross from the model's device to the canvases in one copy.

Shape suffixes: R rows (masked positions) of one canvas, A alternatives that the canvas reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_NUM_FIELDS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """A token for every row of a canvas, on the host.

    Attributes:
        token_ids_R: int64.
        confidence_R: the tokens' softmax probabilities.
        scores_R: the scores by which `remasking` ranks; the highest are committed.
        entropies_R: the distributions' entropies in nats if a parallel rule needs them, else 0.
        alternative_ids_AR, alternative_probabilities_AR: the most probable tokens, in descending order.
    """

    token_ids_R: np.ndarray
    confidence_R: np.ndarray
    scores_R: np.ndarray
    entropies_R: np.ndarray
    alternative_ids_AR: np.ndarray
    alternative_probabilities_AR: np.ndarray

    def alternatives(self, row: int) -> tuple[tuple[int, float], ...]:
        """The most probable tokens of a row, with their probabilities."""
        ids_A, probabilities_A = self.alternative_ids_AR[:, row], self.alternative_probabilities_AR[:, row]
        return tuple(
            (int(token_id), float(probability)) for token_id, probability in zip(ids_A, probabilities_A, strict=True)
        )


def pack(
    token_ids_R: Tensor,
    confidence_R: Tensor,
    scores_R: Tensor,
    entropies_R: Tensor,
    alternative_ids_RA: Tensor,
    alternative_probabilities_RA: Tensor,
) -> Tensor:
    """Lay the fields of `Proposals` into one tensor, float64 [4 + 2A, R], which holds every id exactly."""
    fields = (token_ids_R, confidence_R, scores_R, entropies_R)
    alternatives = (*alternative_ids_RA.unbind(1), *alternative_probabilities_RA.unbind(1))
    return torch.stack([field.double() for field in (*fields, *alternatives)])


def copy_to_host(packed: Sequence[Tensor]) -> np.ndarray:
    """Copy the packed proposals of a whole step to the host at once: float64 [largest 4 + 2A, all rows]."""
    height = max(len(part) for part in packed)
    # Canvases may report different numbers of alternatives; those with fewer are padded with zeros.
    parts = [part if len(part) == height else F.pad(part, (0, 0, 0, height - len(part))) for part in packed]
    on_host: np.ndarray = torch.cat(parts, dim=1).cpu().numpy()
    return on_host


def unpack(packed: np.ndarray, num_alternatives: int) -> Proposals:
    """Read the proposals of one canvas from its rows of the packed array."""
    token_ids_R, confidence_R, scores_R, entropies_R = packed[:_NUM_FIELDS]
    ids_AR, probabilities_AR = packed[_NUM_FIELDS : _NUM_FIELDS + 2 * num_alternatives].reshape(
        2, num_alternatives, packed.shape[1]
    )
    return Proposals(token_ids_R.astype(np.int64), confidence_R, scores_R, entropies_R, ids_AR, probabilities_AR)
