"""Policy gradients with a diffusion model: the log-probability of each token of an answer, and GRPO's loss.

GRPO (arXiv:2402.03300) asks how likely each token of an answer was, now and when it was written. A masked diffusion
model has no such number. The closest one is the token's share of the bound on log p(answer | prompt): its
log-probability under a random mask that hides it, averaged over masks whose size is uniform over 1 … C. There are two
estimates of it, and both measure every token of an answer exactly once, so that all tokens count alike:

- `one_step` (diffu-GRPO, arXiv:2504.12216) masks the whole response. It takes one pass and has no variance, but a bias:
  no token sees another.
- `coupled` (coupled-GRPO, arXiv:2506.20639) draws a mask, measures the tokens under it, and the others under its
  complement. It takes two passes, and tokens see others, as when they were written. The bias that is left, because a
  small mask measures few tokens, could be removed by weights, which add variance; it is left in.

On the demo's answers `coupled` has a quarter of the bias of `one_step` (docs/training.md). Random masks in the
prompt (`prompt_masking`; 0.15 in diffu-GRPO) make the passes of several updates differ.

A block-causal model sees the clean blocks before a masked one (`loss`), so under `one_step` no token sees another of
its own block. A mask of the canvas at a uniform level is, but for rounding, one of every block.

The response lies on a canvas of fixed length, as the sampler saw it: tokens after the end of its text are masked like
the others, but never measured.

Shape suffixes: B responses, V views of each, L positions of a row. Rows of views are B · V, a response's side by side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from llada_core.diffusion.loss import masked_cross_entropy
from llada_core.diffusion.noise import Corrupted
from llada_core.diffusion.preference import Draws
from llada_core.model.interface import MaskPredictor

Estimator = Literal["coupled", "one_step"]
# Forward passes over a response.
NUM_VIEWS: Mapping[Estimator, int] = {"coupled": 2, "one_step": 1}


@dataclass(frozen=True, slots=True)
class Responses:
    """Responses after their prompts, padded on the right.

    Attributes:
        starts_B: the position at which each response begins.
        stops_B: the position at which its text ends, the token that ends it included; only text is measured.
        lengths: tokens of each row: prompt and canvas. They are on the host: they decide the shapes.
    """

    tokens_BL: Tensor
    starts_B: Tensor
    stops_B: Tensor
    lengths: tuple[int, ...]

    @property
    def is_text_BL(self) -> Tensor:
        """Which positions are measured, bool."""
        return self._is_within(self.starts_B, self.stops_B)

    @property
    def is_canvas_BL(self) -> Tensor:
        """Which positions belong to the response, bool: the text and what follows it."""
        return self._is_within(self.starts_B, torch.tensor(self.lengths, device=self.tokens_BL.device))

    @property
    def is_prompt_BL(self) -> Tensor:
        """Which positions belong to the prompt, bool."""
        return self._is_within(torch.zeros_like(self.starts_B), self.starts_B)

    def _is_within(self, starts_B: Tensor, stops_B: Tensor) -> Tensor:
        positions_L = torch.arange(self.tokens_BL.shape[1], device=self.tokens_BL.device)
        return (positions_L >= starts_B.unsqueeze(1)) & (positions_L < stops_B.unsqueeze(1))


def views_of(
    responses: Responses, draws: Draws, *, estimator: Estimator, mask_id: int, prompt_masking: float = 0.0
) -> Corrupted:
    """Mask each response for the passes of an estimator.

    Args:
        draws: one for each response: its level decides how many positions of the canvas the first of two masks hides,
            its order which ones, and which tokens of the prompt are masked.
        prompt_masking: the probability with which a token of the prompt is masked, in all views of a response.

    Returns:
        Rows of views: the model's input; which positions are measured, over the views of a response each position of
        its text once; and 1 as the weight of a row.
    """
    canvas_BL, order_BL = responses.is_canvas_BL, draws.order_BNL[:, 0]
    if estimator == "one_step":
        hidden_BVL = canvas_BL.unsqueeze(1)
    else:
        sizes_B1 = canvas_BL.sum(dim=1, keepdim=True)
        # 1 … C - 1 positions, so that both masks hide some.
        counts_B1 = (draws.levels_BN * (sizes_B1 - 1)).long() + 1
        ranks_BL = torch.where(canvas_BL, order_BL, 2.0).argsort(dim=1).argsort(dim=1)
        first_BL = canvas_BL & (ranks_BL < counts_B1)
        hidden_BVL = torch.stack((first_BL, canvas_BL & ~first_BL), dim=1)
    measured_BVL = hidden_BVL & responses.is_text_BL.unsqueeze(1)
    hidden_BVL = hidden_BVL | (responses.is_prompt_BL & (order_BL < prompt_masking)).unsqueeze(1)
    tokens_BVL = torch.where(hidden_BVL, mask_id, responses.tokens_BL.unsqueeze(1))
    ones = torch.ones(tokens_BVL.shape[:2].numel(), dtype=torch.float64, device=tokens_BVL.device)
    return Corrupted(tokens_BVL.flatten(0, 1), measured_BVL.flatten(0, 1), ones)


def token_log_probs(model: MaskPredictor, responses: Responses, views: Corrupted) -> Tensor:
    """Return log p of each token of each text, in the view that measures it; float32 [B, L] in nats, 0 elsewhere."""
    num_views = len(views.tokens_BL) // len(responses.lengths)
    tokens_BL, is_prompt_BL = (
        part_BL.repeat_interleave(num_views, dim=0) for part_BL in (responses.tokens_BL, responses.is_prompt_BL)
    )
    # A clean copy has the prompt's masks too.
    tokens_BL = torch.where(is_prompt_BL, views.tokens_BL, tokens_BL)
    spans = tuple((length,) for length in responses.lengths for _ in range(num_views))
    log_probs_R = -masked_cross_entropy(model, tokens_BL, views, spans=spans)
    # Dense, since on a GPU index_add adds in a different order each time.
    rows_BL = torch.zeros(tokens_BL.shape, dtype=torch.float32, device=tokens_BL.device)
    return rows_BL.masked_scatter(views.masked_BL, log_probs_R).unflatten(0, (-1, num_views)).sum(dim=1)


def group_advantages(rewards_BG: Tensor, *, scale: bool) -> Tensor:
    """Return by how much each answer's reward exceeds the mean of its group, float64 [B, G]: 0 if all are equal.

    Args:
        rewards_BG: of G answers to each of B prompts.
        scale: divide by the group's standard deviation, as GRPO does. Without it (arXiv:2503.20783), prompts that are
            nearly always or nearly never answered well do not weigh more than others.
    """
    rewards_BG = rewards_BG.double()
    differences_BG = rewards_BG - rewards_BG.mean(dim=1, keepdim=True)
    if scale:
        differences_BG = differences_BG / rewards_BG.std(dim=1, keepdim=True, correction=0)
    # Compared, not subtracted: the mean of equal rewards may be another number by its rounding.
    is_equal_B1 = rewards_BG.amax(dim=1, keepdim=True) == rewards_BG.amin(dim=1, keepdim=True)
    return torch.where(is_equal_B1, 0.0, differences_BG)


@dataclass(frozen=True, slots=True)
class PolicyLosses:
    """The loss of each response and its figures; float64 [B], means over the tokens of its text.

    Attributes:
        losses_B: minus the clipped advantage, plus β times the divergence.
        divergences_B: the estimated divergence from the reference, in nats per token; without gradient.
        clipped_B: the share of tokens that the clip takes out of the gradient.
    """

    losses_B: Tensor
    divergences_B: Tensor
    clipped_B: Tensor


def policy_losses(
    log_probs: Tensor,
    old: Tensor,
    reference: Tensor | None,
    advantages_B: Tensor,
    *,
    is_text_BL: Tensor,
    clip: float,
    beta: float,
) -> PolicyLosses:
    """Return GRPO's loss of each response (arXiv:2402.03300, equation 3): every response has the same weight.

    The divergence KL(policy ‖ reference) is estimated as r - 1 - log r, where r is the ratio of reference to policy
    (equation 4); the estimate is never negative.

    Args:
        log_probs, old, reference: log p of each token by the policy, by the policy that wrote it, and by the reference,
            all under the same masks; [B, L]. Without a reference there is no divergence.
        clip: ratios of policies beyond 1 ± this no longer move the loss in the direction of the advantage.
        beta: weight of the divergence.
    """
    log_probs_BL, advantages_B1 = log_probs.double(), advantages_B.unsqueeze(1)
    ratios_BL = (log_probs_BL - old.double()).exp()
    gains_BL = ratios_BL * advantages_B1
    clipped_BL = ratios_BL.clamp(1 - clip, 1 + clip) * advantages_B1
    losses_BL = -torch.minimum(gains_BL, clipped_BL)
    divergences_BL = torch.zeros_like(losses_BL)
    if reference is not None:
        logs_BL = reference.double() - log_probs_BL
        divergences_BL = logs_BL.exp() - 1 - logs_BL
        losses_BL = losses_BL + beta * divergences_BL
    num_tokens_B = is_text_BL.sum(dim=1)

    def mean(values_BL: Tensor) -> Tensor:
        return torch.where(is_text_BL, values_BL, 0.0).sum(dim=1) / num_tokens_B

    return PolicyLosses(mean(losses_BL), mean(divergences_BL.detach()), mean((clipped_BL < gains_BL).detach().double()))
