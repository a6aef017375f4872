"""Likelihoods, computed on the model threads between the steps of other requests."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch

from llada_core.diffusion.likelihood import AnswerScorer, LogLikelihood, summarize
from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.prepare import Vocabulary
from server.engine.metrics import AnswerMetrics
from server.http.api_error import bad_request


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Estimates how likely a completion is after a prompt.

    Attributes:
        max_model_len: the most tokens of a prompt and its completion.
        max_batch_tokens: the most tokens of one forward pass.
    """

    model: MaskPredictor
    vocabulary: Vocabulary
    max_model_len: int
    max_batch_tokens: int
    metrics: AnswerMetrics

    def scorer(self, prompt: Sequence[int], completion: Sequence[int], *, cfg_scale: float) -> AnswerScorer:
        """Return what scores `completion` after `prompt`, after a check that it can be scored.

        Raises:
            APIError, InvalidParameterError: no ids, ids out of range, the mask id, too many ids.
        """
        # The lengths first: the ids are checked one by one, on the event loop.
        if len(prompt) + len(completion) > self.max_model_len:
            raise bad_request(
                f"prompt has {len(prompt)} tokens and completion {len(completion)}; "
                f"together they must be at most max_model_len ({self.max_model_len})",
                "prompt" if len(prompt) >= self.max_model_len else "completion",
                "context_length_exceeded",
            )
        for field, ids in (("prompt", prompt), ("completion", completion)):
            if not ids:
                raise InvalidParameterError(f"{field} has 0 tokens; it must have at least 1", field)
            self.vocabulary.require_tokens(ids, field)
        mask_id = self.model.special_tokens.mask_id
        return AnswerScorer(self.model, prompt, completion, mask_id=mask_id, cfg_scale=cfg_scale)

    def estimation(self, scorer: AnswerScorer, *, mc_num: int, seed: int) -> Generator[int, None, LogLikelihood]:
        """The work for a model thread, which yields the number of tokens after every part of the draws."""
        estimates = []
        for estimates_N in scorer.estimate_in_parts(mc_num, seed=seed, max_tokens=self.max_batch_tokens):
            estimates.append(estimates_N)
            yield scorer.num_tokens(len(estimates_N))
        self.metrics.observe_scored(len(scorer.answer))
        return summarize(torch.cat(estimates), num_tokens=len(scorer.answer))
