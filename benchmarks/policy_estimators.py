"""Bias and variance of the log-probabilities of tokens that policy gradients use, by enumeration on the demo.

    python -m benchmarks.policy_estimators    # four minutes of CPU time

Every mask of a canvas of 12 positions is computed, so that the figures are exact. An estimate is compared with the
token's share of the bound (llada_core/diffusion/policy.py), for the model and for the change of it that small random
changes of the weights bring, of which a policy's ratio consists.
"""

import copy
from collections.abc import Callable
from itertools import product
from math import comb

import torch
import typer
from torch import Tensor

from llada_core import DEMO_FOLDER, load_checkpoint, load_tokenizer
from llada_core.model.network import Network
from llada_core.text.special_tokens import EOT_TOKEN
from llada_core.text.tokenizer import Message

_ANSWERS = (
    ("What is 38 - 29?", "38 - 29 = 9."),
    ("What is 38 - 29?", "38 - 29 = 69."),
    ("What is 7 * 8?", "7 * 8 = 56."),
    ("What is the capital of Ghana?", "The capital of Ghana is Accra."),
)
_CANVAS = 12
_MASKS_AT_ONCE = 256
_CHANGE = 0.01  # of each weight's standard deviation
_MASKS = torch.tensor(list(product((0, 1), repeat=_CANVAS)), dtype=torch.bool)
_SIZES = _MASKS.sum(dim=1)
_NUMBERS_OF_SIZE = torch.tensor([comb(_CANVAS, size) for size in range(_CANVAS + 1)])[_SIZES].double()

# From log p of every token under every mask to the estimates, and the probability of each mask to be drawn.
Estimator = Callable[[Tensor], tuple[Tensor, Tensor]]


def one_step(log_probs_MT: Tensor) -> tuple[Tensor, Tensor]:
    """All masked."""
    return log_probs_MT[-1:], torch.ones(1, dtype=torch.float64)


def coupled(log_probs_MT: Tensor) -> tuple[Tensor, Tensor]:
    """A mask of 1 … C - 1 positions, and its complement."""
    probabilities_M = torch.where((_SIZES > 0) & (_SIZES < _CANVAS), 1 / (_CANVAS - 1) / _NUMBERS_OF_SIZE, 0.0)
    # The complement of mask m is mask -1 - m.
    return torch.where(_MASKS[:, : log_probs_MT.shape[1]], log_probs_MT, log_probs_MT.flip(0)), probabilities_M


def weighted_coupled(log_probs_MT: Tensor) -> tuple[Tensor, Tensor]:
    """A mask of 1 … C positions and its complement, with the weights that leave no bias."""
    probabilities_M = torch.where(_SIZES > 0, 1 / _CANVAS / _NUMBERS_OF_SIZE, 0.0)
    sizes_M1 = _SIZES.unsqueeze(1).double()
    halves_M1 = torch.where(sizes_M1 == _CANVAS, 1.0, 0.5)
    under = log_probs_MT * halves_M1 * _CANVAS / sizes_M1.clamp(min=1)
    beside = log_probs_MT.flip(0) * 0.5 * _CANVAS / (_CANVAS - sizes_M1).clamp(min=1)
    return torch.where(_MASKS[:, : log_probs_MT.shape[1]], under, beside), probabilities_M


def one_of_two(log_probs_MT: Tensor) -> tuple[Tensor, Tensor]:
    """A mask of 1 … C positions, weighted by C / size: the mean of two of them takes as many passes."""
    probabilities_M = torch.where(_SIZES > 0, 1 / _CANVAS / _NUMBERS_OF_SIZE, 0.0)
    weights_M1 = _CANVAS / _SIZES.unsqueeze(1).clamp(min=1).double()
    return torch.where(_MASKS[:, : log_probs_MT.shape[1]], log_probs_MT * weights_M1, 0.0), probabilities_M


_ESTIMATORS: dict[str, tuple[Estimator, int]] = {
    "one_step": (one_step, 1),
    "coupled": (coupled, 1),
    "coupled, weighted": (weighted_coupled, 1),
    "two masks, weighted": (one_of_two, 2),
}


def main() -> None:
    """Print a table: root mean squares over the tokens of all answers."""
    tokenizer = load_tokenizer(DEMO_FOLDER)
    assert tokenizer is not None
    model = load_checkpoint(DEMO_FOLDER).eval()
    other = _changed(model)
    end = tokenizer.token_to_id(EOT_TOKEN)
    assert end is not None
    columns: dict[str, list[list[Tensor]]] = {name: [[], [], [], []] for name in _ESTIMATORS}
    for question, answer in _ANSWERS:
        prompt, text = tokenizer.encode_chat([Message("user", question)]), [*tokenizer.encode_plain(answer), end]
        before_MT, after_MT = (_log_probs(network, prompt, text[:_CANVAS]) for network in (model, other))
        for name, (estimator, num_draws) in _ESTIMATORS.items():
            for place, log_probs_MT in enumerate((before_MT, after_MT - before_MT)):
                estimates, probabilities = estimator(log_probs_MT)
                mean_T = (probabilities.unsqueeze(1) * estimates).sum(dim=0)
                variance_T = (probabilities.unsqueeze(1) * (estimates - mean_T) ** 2).sum(dim=0) / num_draws
                columns[name][2 * place].append((mean_T - _share_of_bound(log_probs_MT)) ** 2)
                columns[name][2 * place + 1].append(variance_T)
    typer.echo(
        "| estimate | bias | standard deviation | bias of the change | its standard deviation |\n|---|---|---|---|---|"
    )
    for name, parts in columns.items():
        cells = [f"{float(torch.cat(part).mean().sqrt()):.4f}" for part in parts]
        typer.echo(f"| {name} | {' | '.join(cells)} |")


def _changed(model: Network) -> Network:
    torch.manual_seed(0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            if weight.ndim > 1:
                weight.add_(_CHANGE * weight.std() * torch.randn_like(weight))
    return other


@torch.no_grad()
def _log_probs(model: Network, prompt: list[int], text: list[int]) -> Tensor:
    """Log p of each token of the text under every mask of the canvas, float64 [masks, tokens]."""
    eos_id, mask_id = model.special_tokens.eos_id, model.special_tokens.mask_id
    canvas, targets = torch.tensor([*text, *[eos_id] * (_CANVAS - len(text))]), torch.tensor(text)
    parts = []
    for masks in _MASKS.split(_MASKS_AT_ONCE):
        rows = torch.cat((torch.tensor(prompt).expand(len(masks), -1), torch.where(masks, mask_id, canvas)), dim=1)
        logits = model(rows).logits[:, len(prompt) : len(prompt) + len(text)].double()
        parts.append(logits.log_softmax(dim=-1).gather(2, targets.expand(len(masks), -1).unsqueeze(2)).squeeze(2))
    return torch.cat(parts)


def _share_of_bound(log_probs_MT: Tensor) -> Tensor:
    """The mean over sizes 1 … C of the mean over the masks of a size that hide the token."""
    hides_MT = _MASKS[:, : log_probs_MT.shape[1]].double()
    # Of the masks of a size, the share size / C hides a token.
    weights_M1 = (1 / _CANVAS / _NUMBERS_OF_SIZE * _CANVAS / _SIZES.clamp(min=1)).unsqueeze(1)
    return (log_probs_MT * hides_MT * weights_M1).sum(dim=0)


if __name__ == "__main__":
    main()
