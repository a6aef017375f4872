"""A canvas: all state of one request, from the first mask to the final text.

It lives on the host. A batch is made of canvases for one step only; nothing about a canvas depends on its neighbours.
`prepare` makes canvases; `schedule` says where a step works, `text_end` where the text ends.

Shape suffixes: L tokens of the canvas, R proposals of a step, N those of the active block.
"""

from dataclasses import dataclass

import numpy as np

from llada_core.diffusion.guidance import num_passes
from llada_core.model.kv_cache import KVCache
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.events import Change, DenoisingStep, Prediction, Reporting
from llada_core.sampling.frame import Frame
from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.params import SEMI_AUTOREGRESSIVE_ORIGIN, GenerationParams
from llada_core.sampling.proposals import Proposals
from llada_core.sampling.schedule import Schedule
from llada_core.sampling.text_end import TextEnd
from llada_core.text.special_tokens import SpecialTokens


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The parts of a canvas, which never change.

    Attributes:
        prompt_length: tokens before the response; 0 on an infilling canvas, whose fixed segments are in the response.
        response_length: tokens of the response; a suffix may follow.
        fixed_L: the tokens fixed from the start: prompt, suffix, constraints, an infilling canvas's segments.
        banned_ids: ids that are never written.
        end_ids: ids that end the text.
    """

    prompt_length: int
    response_length: int
    fixed_L: np.ndarray
    special_tokens: SpecialTokens
    banned_ids: tuple[int, ...]
    end_ids: frozenset[int]

    @property
    def mask_id(self) -> int:
        """The id that masked positions hold."""
        return self.special_tokens.mask_id

    @property
    def response(self) -> slice:
        """The response among the tokens of the canvas."""
        return slice(self.prompt_length, self.prompt_length + self.response_length)

    @property
    def num_given(self) -> int:
        """Tokens of the response that are not part of the answer: an infilling canvas's segments."""
        # Constraints are part of the answer.
        return 0 if self.prompt_length else int(self.fixed_L.sum())

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that the request supplied: prompt, suffix, an infilling canvas's segments."""
        return len(self.fixed_L) - self.response_length + self.num_given


class Canvas:
    """The tokens of one request and the steps still to run.

    Positions count from the first response token, except in `window`, which counts from the first token.

    Attributes:
        params: the settings with every default resolved.
        start: the frame at which the run begins: all masks or, where it goes on from another run, a frame of that.
        tokens: int64 ids [L], prompt included; masked positions hold the mask id.
        step: the number of the next step; counts from that of `start`.
        caches: keys and values, one cache per forward pass of a step; None before the first step, after the last, and
            after being released: the next step then fills them again with what they held.
        refreshed_tokens: the tokens [L] from which the caches were filled last; None before the first time.
    """

    def __init__(
        self,
        start: Frame,
        params: GenerationParams,
        layout: Layout,
        *,
        text_end: TextEnd,
        reporting: Reporting,
    ) -> None:
        """Build a canvas. Call the functions of `prepare` and `fork` instead, which check their arguments."""
        self.params = params
        self.layout = layout
        self.reporting = reporting
        self.start = start
        self.schedule = Schedule(
            start.blocks, block_step=start.block_step, cache_refresh_interval=params.cache_refresh_interval
        )
        self.text_end = text_end
        self.tokens = start.tokens.copy()
        self.step = start.step
        self.caches: tuple[KVCache, ...] | None = None
        self.refreshed_tokens = start.refreshed_tokens
        self._predictions: dict[int, Prediction] = {}
        self.text_end.advance(self.response, is_over=self.schedule.is_over)

    @property
    def response(self) -> list[int]:
        """The response as it stands, `gen_length` ids; mask ids may remain to the right of the end."""
        ids: list[int] = self.tokens[self.layout.response].tolist()
        return ids

    @property
    def text_ids(self) -> list[int]:
        """The ids of the final text: from the left up to the first mask, the end token left out."""
        return self.response[: self.text_end.text_length]

    @property
    def num_masked(self) -> int:
        return int(self._is_masked(0, self.layout.response_length).sum())

    @property
    def finish_reason(self) -> str | None:
        """None while steps remain, then `stop` or `length`."""
        return self.text_end.finish_reason

    @property
    def forward_passes(self) -> int:
        """Forward passes run so far; guidance takes two per step."""
        return (self.step - self.start.step) * num_passes(self.params.cfg_scale)

    @property
    def visible_length(self) -> int:
        """Tokens that the model sees in the next step, prompt included."""
        if self.params.method == SEMI_AUTOREGRESSIVE_ORIGIN:
            return self.layout.prompt_length + self.schedule.block.stop
        return len(self.tokens)

    @property
    def window(self) -> range:
        """Positions, counted from the first token, that the next step sends through the model."""
        visible = range(self.visible_length)
        if self.schedule.is_refresh:
            return visible
        start, block = self.layout.prompt_length, self.schedule.block
        return CACHE_POLICIES[self.params.cache](range(start + block.start, start + block.stop), visible)

    @property
    def lacks_caches(self) -> bool:
        """Whether the next step reads caches that were released."""
        return self.caches is None and self.params.cache != "none" and not self.schedule.is_refresh

    def passes(self, tokens_L: np.ndarray) -> tuple[np.ndarray, ...]:
        """The input of each forward pass over `tokens_L`: under guidance also one with every fixed token masked."""
        if not self.params.cfg_scale:
            return (tokens_L,)
        return tokens_L, np.where(self.layout.fixed_L, self.layout.mask_id, tokens_L)

    def proposal_positions(self) -> np.ndarray:
        """Return the response positions at which the next step needs logits.

        These are the masks of the active block or, where predictions are reported, all masks of the window.
        """
        start, stop = self.schedule.block.start, self.schedule.block.stop
        if self.reporting.include_predictions:
            window, prompt_length = self.window, self.layout.prompt_length
            start, stop = max(0, window.start - prompt_length), window.stop - prompt_length
        return self._is_masked(start, stop).nonzero()[0] + start

    def commit(self, positions_R: np.ndarray, proposals: Proposals) -> DenoisingStep:
        """Commit the highest-scoring proposals of the active block; on a tie, the leftmost.

        Args:
            positions_R: the response positions that `proposal_positions` returned.
        """
        block = self.schedule.block
        if self.caches is not None and self.schedule.is_refresh:
            self.refreshed_tokens = self.tokens.copy()
        chosen = self._choose(positions_R, proposals)
        changes = self._write(positions_R, proposals, chosen)
        if self.reporting.include_predictions:
            self._remember_predictions(positions_R, proposals)
        self.step += 1
        self.schedule.advance(is_block_full=not self._is_masked(block.start, block.stop).any())
        self.text_end.advance(self.response, is_over=self.schedule.is_over)
        if self.finish_reason is not None:
            self.caches = None
        return DenoisingStep(
            step=self.step - 1,
            block=block.index,
            changes=changes,
            masked=self.num_masked,
            final_length=self.text_end.final_length,
            text_length=self.text_end.text_length,
            finish_reason=self.finish_reason,
            predictions=tuple(self._predictions.values()) if self.reporting.include_predictions else None,
        )

    def _choose(self, positions_R: np.ndarray, proposals: Proposals) -> np.ndarray:
        """Return which of the proposals are committed, as indices from left to right."""
        block = self.schedule.block
        candidates_N = ((positions_R >= block.start) & (positions_R < block.stop)).nonzero()[0]
        ranked_N = candidates_N[np.argsort(-proposals.scores_R[candidates_N], kind="stable")]
        num_transfers = self.schedule.num_transfers
        if num_transfers is not None:
            return np.sort(ranked_N[:num_transfers])
        assert self.params.parallel_rule is not None
        rule, value = self.params.parallel_rule
        confidence_N, entropies_N = proposals.confidence_R[ranked_N], proposals.entropies_R[ranked_N]
        is_sure_N = PARALLEL_RULES[rule].choose(confidence_N, entropies_N, value)
        is_sure_N[0] = True
        return np.sort(ranked_N[is_sure_N])

    def _write(self, positions_R: np.ndarray, proposals: Proposals, chosen: np.ndarray) -> tuple[Change, ...]:
        self.tokens[self.layout.prompt_length + positions_R[chosen]] = proposals.token_ids_R[chosen]
        return tuple(
            Change(
                "commit",
                self.step,
                int(positions_R[i]),
                int(proposals.token_ids_R[i]),
                float(proposals.confidence_R[i]),
                proposals.alternatives(i),
            )
            for i in chosen
        )

    def _remember_predictions(self, positions_R: np.ndarray, proposals: Proposals) -> None:
        """Update the guesses at masked positions; outside a cached step's window the previous ones remain."""
        latest = {
            int(position): Prediction(int(position), int(token_id), float(probability))
            for position, token_id, probability in zip(
                positions_R, proposals.token_ids_R, proposals.confidence_R, strict=True
            )
        }
        is_masked = self._is_masked(0, self.layout.response_length)
        predictions = sorted((self._predictions | latest).items())
        self._predictions = {position: prediction for position, prediction in predictions if is_masked[position]}

    def _is_masked(self, start: int, stop: int) -> np.ndarray:
        """Return which response positions from `start` to `stop` are masked, bool."""
        is_masked: np.ndarray = self.tokens[self.layout.response][start:stop] == self.layout.mask_id
        return is_masked
