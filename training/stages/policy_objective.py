"""GRPO's objective as a module: prompts whose answers are known in, their share of the optimizer step's loss out.

The policy, the policy that wrote the answers and the reference are compared under the same masks, so that their errors
cancel. The frozen reference lies within the module, so that FSDP2 shards it too.

Shape suffixes: B answers, those to one prompt side by side; L positions of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from llada_core.diffusion.noise import Corrupted
from llada_core.diffusion.policy import NUM_VIEWS, Estimator, Responses, policy_losses, token_log_probs, views_of
from llada_core.diffusion.preference import Draws
from llada_core.model.network import Network
from training.data.batches import Batch
from training.stages.denoising import in_whole_blocks
from training.stages.figures import mean_of
from training.stages.objective import BatchLoss
from training.stages.rollouts import Asked, Group, Rollout, SampleKey


@dataclass(frozen=True, slots=True)
class Updating:
    """How a step follows the advantages of answers; see `llada_core.diffusion.policy`.

    Attributes:
        updates: steps on the same answers.
        gen_length: positions of an answer's canvas.
    """

    estimator: Estimator
    prompt_masking: float
    beta: float
    clip: float
    updates: int
    gen_length: int

    @property
    def num_views(self) -> int:
        """Rows that the model computes for an answer."""
        return NUM_VIEWS[self.estimator]


class PolicyObjective(nn.Module):
    """Answers weighed by their advantages.

    Args:
        reference: a network without trained weights; None if nothing holds the policy to it.

    Attributes:
        groups: the answers of the current step by their prompts, which a `Rollouts` puts here.
    """

    def __init__(self, model: Network, reference: Network | None, *, updating: Updating, seed: int) -> None:
        super().__init__()
        self.model = model
        self.reference = reference
        self.groups: dict[SampleKey, Group] = {}
        self._updating = updating
        self._seed = seed

    def forward(self, batch: Batch) -> BatchLoss:
        groups = [self.groups.get(asked.key) or _unanswered(asked) for asked in Asked.from_batch(batch)]
        responses = self._responses(groups)
        views = self._views(groups, responses, repeat=batch.repeat)
        reference_BL = None
        if self.reference is not None:
            # First, as nothing is kept for backward yet.
            with torch.no_grad():
                reference_BL = token_log_probs(self.reference, responses, views)
        log_probs_BL = token_log_probs(self.model, responses, views)
        # Before the first update the policy is the one that wrote the answers.
        old_BL = log_probs_BL.detach() if batch.repeat == 0 else self._written(groups, responses, repeat=batch.repeat)
        found = policy_losses(
            log_probs_BL,
            old_BL,
            reference_BL,
            self._of_answers([rollout.advantage for group in groups for rollout in group.rollouts]),
            is_text_BL=responses.is_text_BL,
            clip=self._updating.clip,
            beta=self._updating.beta,
        )
        # By the prompts of the whole step, and the answers to each.
        loss = (found.losses_B.unflatten(0, (len(groups), -1)).mean(dim=1) / batch.normalizer_B).sum().float()
        figures = {"kl": mean_of(found.divergences_B), "clip_share": mean_of(found.clipped_B)}
        return BatchLoss(loss, {**self._figures(groups), **figures})

    def measure(self, groups: Sequence[Group]) -> list[list[list[list[float]]]]:
        """Return log p of each token by the current weights, for the masks of every update but the first.

        Returns:
            For each group and each of its answers a list for every update.
        """
        measured = []
        for group in groups:
            responses = self._responses([group])
            updates: list[list[list[float]]] = []
            for repeat in range(1, self._updating.updates):
                views = self._views([group], responses, repeat=repeat)
                with torch.no_grad():
                    log_probs_BL = token_log_probs(self.model, responses, views)
                updates.append(
                    [
                        log_probs_L[is_text_L].tolist()
                        for log_probs_L, is_text_L in zip(log_probs_BL, responses.is_text_BL, strict=True)
                    ]
                )
            measured.append(
                [list(of_answer) for of_answer in zip(*updates, strict=True)] or [[] for _ in group.rollouts]
            )
        return measured

    def _responses(self, groups: Sequence[Group]) -> Responses:
        """The rows of all answers: prompt, text, and EOS to the end of the canvas, in whole blocks if it has any."""
        eos_id, block_length = self.model.special_tokens.eos_id, self.model.shape.block_length
        rows = []
        for group in groups:
            length = in_whole_blocks(len(group.asked.ids) + self._updating.gen_length, block_length)
            for rollout in group.rollouts:
                ids = [*group.asked.ids, *rollout.token_ids]
                rows.append([*ids, *[eos_id] * (length - len(ids))])
        longest = max(len(row) for row in rows)
        tokens_BL = torch.tensor([[*row, *[eos_id] * (longest - len(row))] for row in rows])
        starts = [len(group.asked.ids) for group in groups for _ in group.rollouts]
        stops = [len(group.asked.ids) + len(rollout.token_ids) for group in groups for rollout in group.rollouts]
        device = self.model.device
        return Responses(
            tokens_BL.to(device),
            torch.tensor(starts, device=device),
            torch.tensor(stops, device=device),
            tuple(len(row) for row in rows),
        )

    def _views(self, groups: Sequence[Group], responses: Responses, *, repeat: int) -> Corrupted:
        """The masks that belong to the answers in an update: others in every update, the same after a restart."""
        coordinates = [
            (*group.asked.key, repeat * len(group.rollouts) + member)
            for group in groups
            for member in range(len(group.rollouts))
        ]
        samples_B, epochs_B, answers_B = torch.tensor(coordinates, device=self.model.device).unbind(dim=1)
        length = responses.tokens_BL.shape[1]
        return views_of(
            responses,
            Draws.of(self._seed, samples_B, epochs_B, answers_B, num_draws=1, length=length),
            estimator=self._updating.estimator,
            mask_id=self.model.special_tokens.mask_id,
            prompt_masking=self._updating.prompt_masking,
        )

    def _written(self, groups: Sequence[Group], responses: Responses, *, repeat: int) -> Tensor:
        """Log p of each token by the weights that wrote the answers, [B, L]; 0 where there is no text."""
        known = [one for group in groups for rollout in group.rollouts for one in rollout.log_probs[repeat - 1]]
        old_BL = torch.zeros(responses.tokens_BL.shape, device=self.model.device)
        return old_BL.masked_scatter(responses.is_text_BL, torch.tensor(known, device=self.model.device))

    def _of_answers(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.model.device)

    def _figures(self, groups: Sequence[Group]) -> dict[str, Tensor]:
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        rewards_BG = self._of_answers([rollout.reward for rollout in rollouts]).view(len(groups), -1)
        figures = {
            "reward": rewards_BG.flatten(),
            "reward_spread": rewards_BG.std(dim=1, correction=0),
            "groups_without_signal": (rewards_BG.amax(dim=1) == rewards_BG.amin(dim=1)).double(),
            "answer_length": self._of_answers([len(rollout.token_ids) for rollout in rollouts]),
        }
        if len(rollouts[0].scores) > 1:
            for name in rollouts[0].scores:
                figures[f"score/{name}"] = self._of_answers([rollout.scores[name] for rollout in rollouts])
        return {name: mean_of(values) for name, values in figures.items()}


def _unanswered(asked: Asked) -> Group:
    """A group without effect: FSDP2 sets itself up in a forward pass, before anything can be answered."""
    return Group(asked, [Rollout("", [0], {}, 0.0)])
