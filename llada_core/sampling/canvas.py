"""A canvas: all state of one request, from the first mask to the final text.

It lives on the host. A batch is made of canvases for one step only; nothing about a canvas depends on its neighbours.
`prepare` makes canvases; `schedule` says where a step works, `text_end` where the text ends.

Shape suffixes: L tokens of the canvas, R proposals of a step, N those of the active block.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llada_core.diffusion.guidance import num_passes
from llada_core.model.kv_cache import KVCache
from llada_core.sampling.cache_policy import CACHE_POLICIES, DELAY
from llada_core.sampling.constraints.candidates import Candidates
from llada_core.sampling.constraints.commit import ActiveBlock, select_viable
from llada_core.sampling.constraints.fillings import Fillings
from llada_core.sampling.constraints.progress import Progress
from llada_core.sampling.events import Change, DenoisingStep, Prediction, Reporting
from llada_core.sampling.frame import Frame
from llada_core.sampling.params import EXACT, GenerationParams
from llada_core.sampling.proposals import Proposals
from llada_core.sampling.schedule import Schedule
from llada_core.sampling.selection import CommitRule, select
from llada_core.sampling.text_end import TextEnd
from llada_core.text.special_tokens import SpecialTokens

# Steps in `Canvas.commit_steps` of positions that no step has committed: fixed or edited ones, and masks.
_GIVEN, _MASKED = -DELAY - 1, np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The parts of a canvas, which never change.

    Attributes:
        prompt_length: tokens before the response; 0 on an infilling canvas, whose fixed segments are in the response.
        response_length: tokens of the response; a suffix may follow.
        fixed_L: the tokens fixed from the start: prompt, suffix, pinned tokens, an infilling canvas's segments.
        banned_ids: ids that are never written.
        end_ids: ids that end the text.
        predicts_next: a token is predicted from the output at the position before it.
        block_length: the blocks by which the model attends, counted from the canvas's first token; None if every
            position sees all.
        overhang: positions right of the response that its last block has; they are denoised with it.
    """

    prompt_length: int
    response_length: int
    fixed_L: np.ndarray
    special_tokens: SpecialTokens
    banned_ids: tuple[int, ...]
    end_ids: frozenset[int]
    predicts_next: bool = False
    block_length: int | None = None
    overhang: int = 0

    @property
    def mask_id(self) -> int:
        """The id that masked positions hold."""
        return self.special_tokens.mask_id

    @property
    def response(self) -> slice:
        """The response among the tokens of the canvas."""
        return slice(self.prompt_length, self.prompt_length + self.response_length)

    @property
    def denoised(self) -> slice:
        """The response and its overhang: all that steps fill."""
        return slice(self.prompt_length, self.response.stop + self.overhang)

    @property
    def num_before(self) -> int | None:
        """The tokens before the response, from which block-causal attention counts its blocks; else None."""
        return None if self.block_length is None else self.prompt_length

    @property
    def num_given(self) -> int:
        """Tokens of the response that are not part of the answer: an infilling canvas's segments."""
        # Pinned tokens are part of the answer.
        return 0 if self.prompt_length else int(self.fixed_L.sum())

    def passes(self, tokens_L: np.ndarray, *, is_guided: bool) -> tuple[np.ndarray, ...]:
        """The input of each forward pass over `tokens_L`: under guidance also one with every fixed token masked."""
        return (tokens_L, np.where(self.fixed_L, self.mask_id, tokens_L)) if is_guided else (tokens_L,)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that the request supplied: prompt, suffix, an infilling canvas's segments."""
        return len(self.fixed_L) - self.response_length - self.overhang + self.num_given


class Restoration(NamedTuple):
    """A step that has to run again: its number, its tokens [L], and the positions that it recomputes.

    Attributes:
        lost: the response positions whose guesses a fork has not inherited; mostly none.
    """

    step: int
    tokens: np.ndarray
    window: np.ndarray
    lost: np.ndarray


def schedule_at(frame: Frame, params: GenerationParams, layout: Layout) -> Schedule:
    """Return the schedule of a canvas at a frame."""
    return Schedule(
        frame.blocks,
        frame.tokens[layout.denoised] == layout.mask_id,
        block_step=frame.block_step,
        post_steps=frame.post_steps,
        max_post_steps=params.max_post_steps or 0,
        cache_refresh_interval=params.cache_refresh_interval,
        max_active=params.active_blocks,
    )


def commit_steps_of(frame: Frame, layout: Layout) -> np.ndarray:
    """Return `Canvas.commit_steps` at a frame, int64 [L]; the caller may change it."""
    if frame.commit_steps is not None:
        return frame.commit_steps.copy()
    return np.where(frame.tokens == layout.mask_id, _MASKED, _GIVEN)


class Canvas:
    """The tokens of one request and the steps still to run.

    Positions count from the first response token, except in `window`, which counts from the first token.

    Attributes:
        params: the settings with every default resolved.
        start: the frame at which the run begins: all masks or, where it goes on from another run, a frame of that.
        tokens: int64 ids [L], prompt included; masked positions hold the mask id.
        progress: the progress through the constraint that the answer satisfies; None without one.
        step: the number of the next step; counts from that of `start`.
        caches: keys and values, one cache per forward pass of a step; None before the first step, after the last, and
            after being released: the next step then fills them again with what they held.
        commit_steps: int64 [L], the step that committed each token: lower than any for tokens given from the start,
            higher for masks.
        refresh_step: the step that filled the caches last; None before the first time.
    """

    def __init__(
        self,
        start: Frame,
        params: GenerationParams,
        layout: Layout,
        *,
        text_end: TextEnd,
        reporting: Reporting,
        progress: Progress | None = None,
    ) -> None:
        """Build a canvas. Call the functions of `prepare` and `fork` instead, which check their arguments."""
        self.params = params
        self.layout = layout
        self.reporting = reporting
        self.start = start
        self.schedule = schedule_at(start, params, layout)
        self.text_end = text_end
        self.progress = progress
        self.tokens = start.tokens.copy()
        self.step = start.step
        self.caches: tuple[KVCache, ...] | None = None
        self.commit_steps = commit_steps_of(start, layout)
        self.refresh_step = start.refresh_step
        self._last_token = int((start.tokens != layout.mask_id).nonzero()[0].max(initial=-1))
        self._predictions: dict[int, Prediction] = {}
        self._advance_ends(may_end=layout.block_length is None)

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
        if self.params.hides_later_blocks or self.layout.block_length is not None:
            return self.layout.prompt_length + self.schedule.active.stop
        if self.params.suffix_window is None:
            return len(self.tokens)
        end = self.layout.prompt_length + self.schedule.active.stop + self.params.suffix_window
        return min(max(end, self._last_token + 1), len(self.tokens))

    @property
    def window(self) -> np.ndarray:
        """Positions, counted from the first token, that the next step sends through the model, ascending."""
        return np.arange(self.visible_length) if self._is_refresh else self._window_at(self.step)

    def restorations(self) -> list[Restoration]:
        """Return the steps that have to run again before the next one; mostly none.

        Where the next step reads caches that were released, these are the last refresh and the steps after it, without
        those whose every position a later one wrote before it was read. Under the policy `exact`, it is one over what
        the caches lack left of the active blocks: the prompt's blocks, one that was finished, or all if released.
        """
        if self.params.cache == EXACT:
            return self._unwritten()
        if self.caches is not None or self.params.cache == "none" or self._is_refresh:
            return []
        assert self.refresh_step is not None
        steps = range(self.refresh_step, self.step)
        windows = [np.arange(self.visible_length), *(self._window_at(step) for step in steps[1:]), self.window]
        restorations = []
        for step, window, following in zip(steps, windows, windows[1:], strict=False):
            if not np.isin(window, following, assume_unique=True).all():
                tokens = tokens_before(self, step)
                lost = window[:0]
                if self.reporting.include_predictions and not self._predictions and step == self.refresh_step:
                    lost = window[tokens[window] == self.layout.mask_id] - self.layout.prompt_length
                restorations.append(Restoration(step, tokens, window, lost))
        return restorations

    def proposal_positions(self) -> np.ndarray:
        """Return the response positions at which the next step needs logits.

        These are the masks of the active blocks or, where predictions are reported, all masks of the window; and
        written tokens of the active block, if they may be edited.
        """
        active, is_open = self.schedule.active, self._is_masked(0, self._num_denoised)
        if self.reporting.include_predictions:
            window = self.window - self.layout.prompt_length
            is_open &= np.isin(np.arange(len(is_open)), window, assume_unique=True)
        else:
            is_open[: active.start] = is_open[active.stop :] = False
        if self.params.editing_threshold is not None:
            is_fixed = self.layout.fixed_L[self.layout.denoised]
            is_open[active.start : active.stop] = ~is_fixed[active.start : active.stop]
        return is_open.nonzero()[0]

    def select_viable(
        self, positions_R: np.ndarray, proposals: Proposals, candidates: Candidates
    ) -> tuple[Proposals, np.ndarray]:
        """Choose what the next step commits under the canvas's constraint.

        Args:
            positions_R: the response positions that `proposal_positions` returned.
            candidates: what could be proposed there instead.

        Returns:
            The proposals, some of them replaced, and the rows to commit, as `commit` takes them.
        """
        rows, start = self._active_rows(positions_R), self.schedule.active.start
        block = ActiveBlock(self.params, self.step, self._fillings(), start, rows, positions_R)
        return select_viable(block, proposals, self._commit_rule(positions_R), candidates)

    def commit(self, positions_R: np.ndarray, proposals: Proposals, rows: np.ndarray | None = None) -> DenoisingStep:
        """Commit the highest-scoring proposals of the active blocks; on a tie, the leftmost.

        Args:
            positions_R: the response positions that `proposal_positions` returned.
            rows: the proposals to commit instead, from left to right; see `select_viable`.
        """
        block = self.schedule.block
        if self.caches is not None and self._is_refresh:
            self.refresh_step = self.step
        if rows is None:
            rows = select(self._active_rows(positions_R), proposals, self._commit_rule(positions_R))
        edits = self._edited_rows(positions_R, proposals)
        changes = self._write(positions_R, proposals, np.sort(np.concatenate((rows, edits))))
        if self.reporting.include_predictions:
            self.remember_predictions(positions_R, proposals)
        self.step += 1
        self.schedule.advance(self._is_masked(0, self._num_denoised), has_edits=len(edits) > 0)
        is_finished = self.schedule.is_over or self.schedule.block is not block
        self._advance_ends(may_end=self._may_end(changes, is_finished=is_finished))
        if self.finish_reason is not None:
            self.caches = None
        return DenoisingStep(
            step=self.step - 1,
            block=block.index,
            changes=tuple(change for change in changes if change.position < self.layout.response_length),
            overhang=tuple(change for change in changes if change.position >= self.layout.response_length),
            masked=self.num_masked,
            final_length=self.text_end.final_length,
            text_length=self.text_end.text_length,
            finish_reason=self.finish_reason,
            predictions=self._reported_predictions() if self.reporting.include_predictions else None,
        )

    def remember_predictions(self, positions_R: np.ndarray, proposals: Proposals) -> None:
        """Update the guesses at masked positions; outside a cached step's window the previous ones remain."""
        latest = {
            int(position): Prediction(int(position), int(token_id), float(probability))
            for position, token_id, probability in zip(
                positions_R, proposals.token_ids_R, proposals.confidence_R, strict=True
            )
        }
        is_masked = self._is_masked(0, self._num_denoised)
        if self.progress is not None:
            is_masked[self._impossible(latest.values())] = False
        predictions = sorted((self._predictions | latest).items())
        self._predictions = {position: prediction for position, prediction in predictions if is_masked[position]}

    @property
    def _is_refresh(self) -> bool:
        return self.params.cache != EXACT and self.schedule.is_refresh

    @property
    def _block_start(self) -> int:
        """The first position of the first active block, in which a prompt may end."""
        start = self.layout.prompt_length + self.schedule.active.start
        return start if self.layout.block_length is None else start - start % self.layout.block_length

    def _unwritten(self) -> list[Restoration]:
        """Return what the caches lack left of the active blocks, to be written in one forward pass; mostly nothing."""
        window = np.arange(self.caches[0].filled if self.caches else 0, self._block_start)
        return [Restoration(self.step, self.tokens, window, window[:0])] if len(window) else []

    @property
    def _num_denoised(self) -> int:
        return self.layout.response_length + self.layout.overhang

    def _reported_predictions(self) -> tuple[Prediction, ...]:
        end = self.layout.response_length
        return tuple(prediction for prediction in self._predictions.values() if prediction.position < end)

    def _commit_rule(self, positions_R: np.ndarray) -> CommitRule:
        held_back, rule, num_transfers = self.schedule.held_back, self.params.parallel_rule, self.schedule.num_transfers
        if rule is not None:
            num_transfers = num_transfers or self.params.min_transfer or 1
            if self.layout.block_length is not None and rule[0] == "confidence_threshold":
                # The samplers of block-causal models ask for more than the threshold.
                rule = rule[0], float(np.nextafter(rule[1], np.inf))
        return CommitRule(
            num_transfers,
            rule,
            is_first_block_R=positions_R < self.schedule.block.stop,
            chance=self.schedule.chance,
            held_back=tuple(_rows_within(range(block.start, block.stop), positions_R) for block in held_back),
        )

    def _active_rows(self, positions_R: np.ndarray) -> np.ndarray:
        """Return the rows of masks in the active blocks, from left to right."""
        rows = _rows_within(self.schedule.active, positions_R)
        is_masked: np.ndarray = self.tokens[self.layout.prompt_length + positions_R[rows]] == self.layout.mask_id
        return rows if is_masked.all() else rows[is_masked]

    def _edited_rows(self, positions_R: np.ndarray, proposals: Proposals) -> np.ndarray:
        """Return the rows of written tokens that the step replaces."""
        threshold = self.params.editing_threshold
        if threshold is None:
            return np.empty(0, dtype=np.int64)
        tokens_R = self.tokens[self.layout.prompt_length + positions_R]
        is_edited_R = (tokens_R != self.layout.mask_id) & (tokens_R != proposals.token_ids_R)
        rows: np.ndarray = (is_edited_R & (proposals.confidence_R > threshold)).nonzero()[0]
        return rows

    def _window_at(self, step: int) -> np.ndarray:
        """Return what a step of the active block recomputes if it is not a refresh: the positions of the cache policy
        and, if these predict the masks, the ones before masks.
        """
        is_recent_L = self.commit_steps >= step - DELAY
        block = range(self._block_start, self.layout.prompt_length + self.schedule.active.stop)
        window = CACHE_POLICIES[self.params.cache](block, range(self.visible_length), is_recent_L)
        if not self.layout.predicts_next:
            return window
        masked = window[self.commit_steps[window] >= step]
        return np.union1d(window, np.maximum(masked - 1, 0))

    def _fillings(self) -> Fillings:
        assert self.progress is not None
        return self.progress.fillings(self.tokens[self.layout.response], self.schedule.active.stop)

    def _may_end(self, changes: Iterable[Change], *, is_finished: bool) -> bool:
        """Whether an end token may end the text after a step: a block-causal model finishes the block first.

        Where tokens may be edited, it finishes all blocks without `eos_early_stop`, as published.
        """
        if self.layout.block_length is None:
            return True
        if self.params.editing_threshold is not None:
            return is_finished and self.params.eos_early_stop
        if is_finished:
            return True
        return self.params.eos_early_stop and any(change.token_id in self.layout.end_ids for change in changes)

    def _advance_ends(self, *, may_end: bool) -> None:
        """Follow the tokens to the active block, and to the end of the text as far as it is certain."""
        if self.progress is not None and not self.schedule.is_over:
            self.progress.advance(self.tokens[self.layout.response], self.schedule.active.start)
        response = self.response
        if self.params.editing_threshold is not None and not self.schedule.is_over:
            # Tokens of the active block may still change.
            response = response[: self.schedule.active.start]
        self.text_end.advance(response, is_over=self.schedule.is_over, may_end=may_end)

    def _write(self, positions_R: np.ndarray, proposals: Proposals, rows: np.ndarray) -> tuple[Change, ...]:
        written = self.layout.prompt_length + positions_R[rows]
        was_masked = self.tokens[written] == self.layout.mask_id
        self.tokens[written] = proposals.token_ids_R[rows]
        self.commit_steps[written] = self.step
        return tuple(
            Change(
                "commit" if is_commit else "edit",
                self.step,
                int(positions_R[i]),
                int(proposals.token_ids_R[i]),
                float(proposals.confidence_R[i]),
                proposals.alternatives(i),
            )
            for i, is_commit in zip(rows, was_masked, strict=True)
        )

    def _impossible(self, predictions: Iterable[Prediction]) -> list[int]:
        """Return the positions in the active blocks that cannot hold what is predicted there."""
        assert self.progress is not None
        active, fillings, classes_V = self.schedule.active, self._fillings(), self.progress.constraint.classes_V
        return [
            guess.position
            for guess in predictions
            if guess.position in active
            and self.tokens[self.layout.prompt_length + guess.position] == self.layout.mask_id
            and not fillings.is_viable(guess.position - active.start, int(classes_V[guess.token_id]))
        ]

    def _is_masked(self, start: int, stop: int) -> np.ndarray:
        """Return which response positions from `start` to `stop` are masked, bool."""
        is_masked: np.ndarray = self.tokens[self.layout.denoised][start:stop] == self.layout.mask_id
        return is_masked


def tokens_before(canvas: Canvas, step: int) -> np.ndarray:
    """Return the tokens [L] as they were before a step that the canvas has run, or before the next one."""
    return np.where(canvas.commit_steps < step, canvas.tokens, canvas.layout.mask_id)


def passes_of(canvas: Canvas, tokens_L: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the input of each forward pass of the canvas over `tokens_L`."""
    return canvas.layout.passes(tokens_L, is_guided=bool(canvas.params.cfg_scale))


def _rows_within(span: range, positions_R: np.ndarray) -> np.ndarray:
    """Return the rows whose positions lie in the span, in ascending order."""
    rows: np.ndarray = ((positions_R >= span.start) & (positions_R < span.stop)).nonzero()[0]
    return rows
