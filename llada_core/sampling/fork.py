"""Forks: a run that goes on from a frame of another one, with some tokens or settings changed.

Noise is a function of (seed, step, position), so a fork without changes gives the rest of its parent, token for token:
no state of a random generator is stored, and the frame follows from the commits.

A fork keeps its parent's blocks. One whose masks were left alone keeps the rest of its schedule; in any other the
present masks are spread over as many steps as the block had, as LLaDA does with masks in a prompt.

Shape suffix: L positions of the response.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from llada_core.errors import InvalidParameterError
from llada_core.sampling.canvas import Canvas, Layout, commit_steps_of, schedule_at
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.constraints.progress import Progress
from llada_core.sampling.events import Change, Reporting
from llada_core.sampling.frame import Frame
from llada_core.sampling.model_settings import with_schedule
from llada_core.sampling.params import EXACT, ORIGIN, GenerationParams
from llada_core.sampling.prepare import (
    Vocabulary,
    canvas_at,
    end_ids_of,
    progress_at,
    require_constrainable,
    require_settings,
)
from llada_core.sampling.schedule import BlockPlan, plan_blocks, share_steps


@dataclass(frozen=True, slots=True)
class Edits:
    """Changes to a frame. A position that is fixed from the start cannot be changed, and no position twice.

    Attributes:
        set: response position → ids that are written from that position on.
        remask: response positions that become masks.
    """

    set: Mapping[int, Sequence[int]] = field(default_factory=dict)
    remask: Sequence[int] = ()

    def apply(self, tokens: np.ndarray, layout: Layout, vocabulary: Vocabulary) -> np.ndarray:
        """Return `tokens` [prompt and response] with the changes made.

        Raises:
            InvalidParameterError: a position out of range, fixed or changed twice, no ids, ids out of range, the mask.
        """
        edited, is_changed_L = tokens.copy(), np.zeros(layout.response_length, dtype=bool)
        response = edited[layout.response]
        for position, ids in sorted(self.set.items()):
            name = f"fork.set.{position}"
            if not ids:
                raise InvalidParameterError(f"{name} has 0 tokens; it must have at least 1", name)
            vocabulary.require_tokens(ids, name, "; `fork.remask` makes masks")
            _mark_changed(is_changed_L, position, len(ids), layout, name)
            response[position : position + len(ids)] = ids
        for position in self.remask:
            _mark_changed(is_changed_L, position, 1, layout, "fork.remask")
            response[position] = layout.mask_id
        return edited


_NO_EDITS = Edits()

# The settings on which active blocks and the contents of a cache depend.
_COURSE = ("active_blocks", "cache", "cache_refresh_interval", "suffix_window")
# The settings on which the plan of a block depends, besides `steps`.
_PLAN = ("steps_per_block", "schedule", "eps")


def _mark_changed(is_changed_L: np.ndarray, position: int, length: int, layout: Layout, name: str) -> None:
    stop = position + length
    where = f"{name}: position {position}" if length == 1 else f"{name}: {length} tokens from position {position} on"
    if position < 0 or stop > len(is_changed_L):
        raise InvalidParameterError(f"{where}; the response has positions 0 to {len(is_changed_L) - 1}", name)
    if layout.fixed_L[layout.response][position:stop].any():
        raise InvalidParameterError(f"{where}; tokens fixed from the start cannot be changed", name)
    if is_changed_L[position:stop].any():
        raise InvalidParameterError(f"{where}; no position may be changed twice", name)
    is_changed_L[position:stop] = True


def frame_at(canvas: Canvas, changes: Iterable[Change], step: int) -> Frame:
    """Return the frame of a run before its step `step`.

    Only what never changes is read of `canvas`, so its run may be under way.

    Args:
        changes: all changes of the run before that step; others are passed over.
        step: from that of `canvas.start` up to the number of the next step.
    """
    start, layout, params = canvas.start, canvas.layout, canvas.params
    changes_of = defaultdict(list)
    for change in changes:
        changes_of[change.step].append(change)
    schedule = schedule_at(start, params, layout)
    tokens, refresh_step = start.tokens.copy(), start.refresh_step
    commit_steps = commit_steps_of(start, layout)
    denoised = tokens[layout.denoised]
    for number in range(start.step, step):
        if params.cache not in ("none", EXACT) and schedule.is_refresh:
            refresh_step = number
        for change in changes_of[number]:
            denoised[change.position] = change.token_id
            commit_steps[layout.denoised][change.position] = number
        has_edits = any(change.op == "edit" for change in changes_of[number])
        schedule.advance(denoised == layout.mask_id, has_edits=has_edits)
    return Frame(
        tokens,
        step,
        schedule.blocks,
        start.shares,
        schedule.block_step,
        schedule.post_steps,
        commit_steps,
        refresh_step,
    )


def prepare_fork(
    parent: Canvas,
    frame: Frame,
    params: GenerationParams,
    vocabulary: Vocabulary,
    *,
    edits: Edits = _NO_EDITS,
    reporting: Reporting,
) -> Canvas:
    """Prepare the canvas that goes on from a frame of another one. Its first step has the frame's number.

    Args:
        parent: only its layout and settings are read, so it may be running.
        params: `parent.params.altered(…)`. With other steps or another schedule, the masks of all blocks are spread
            anew; without, the parent's schedule goes on wherever the edits leave it alone.

    Raises:
        InvalidParameterError: an edit or a setting that breaks a rule, or an edit with which no answer can satisfy the
            parent's constraint; names field, value and rule.
    """
    layout = parent.layout
    is_infilling = layout.special_tokens.eos_id in layout.banned_ids
    require_settings(params, vocabulary, is_infilling=layout.prompt_length == 0)
    layout = replace(layout, end_ids=end_ids_of(params, layout.special_tokens, is_infilling=is_infilling))
    tokens = edits.apply(frame.tokens, layout, vocabulary)
    params = with_schedule(params, vocabulary.shape)
    if (tokens == frame.tokens).all() and _keeps_course(parent.params, params):
        start = frame
    else:
        start = _restarted(frame, tokens, layout, parent.params, params)
    progress = None
    if parent.progress is not None:
        require_constrainable(params, parent.progress.constraint, vocabulary)
        progress = _progress(start, parent.progress.constraint, layout)
    if params.parallel_rule is None and params.steps_per_block is None:
        params = replace(params, steps=start.num_steps or 1)
    return canvas_at(start, params, layout, vocabulary, progress=progress, reporting=reporting)


def _progress(start: Frame, constraint: Constraint, layout: Layout) -> Progress:
    try:
        return progress_at(start, constraint, layout)
    except InvalidParameterError as error:
        # Masks only add answers, so a token that was written is to blame.
        raise InvalidParameterError(str(error).replace("pinned", "fork.set", 1), "fork.set") from None


def _keeps_course(parent: GenerationParams, params: GenerationParams) -> bool:
    """Whether schedule and cache go on where they are, even in the middle of a block."""
    return _keeps_plan(parent, params) and all(getattr(parent, name) == getattr(params, name) for name in _COURSE)


def _keeps_plan(parent: GenerationParams, params: GenerationParams) -> bool:
    """Whether blocks commit as many tokens in each step as they would have."""
    is_same = all(getattr(parent, name) == getattr(params, name) for name in _PLAN)
    is_same_kind = (parent.parallel_rule is None) == (params.parallel_rule is None)
    has_same_counts = (parent.remasking == ORIGIN) == (params.remasking == ORIGIN)
    return params.steps is None and is_same and is_same_kind and has_same_counts


def _restarted(
    frame: Frame, tokens: np.ndarray, layout: Layout, parent: GenerationParams, params: GenerationParams
) -> Frame:
    """The frame after edits: each block begins anew, so that the caches are filled with the edited tokens."""
    is_masked_L = tokens[layout.denoised] == layout.mask_id
    was_masked_L = frame.tokens[layout.denoised] == layout.mask_id
    shares = frame.shares
    if params.steps is not None or params.steps_per_block != parent.steps_per_block:
        present = share_steps(is_masked_L, params, num_before=layout.num_before)
        shares = tuple(new or old for new, old in zip(present, shares, strict=True))
    remaining = _remaining_plans(frame) if _keeps_plan(parent, params) else {}

    def scheduled(block: BlockPlan) -> BlockPlan:
        is_untouched = (is_masked_L == was_masked_L)[block.start : block.stop].all()
        return remaining.get(block.index, block) if is_untouched else block

    planned = plan_blocks(is_masked_L, params, shares, num_before=layout.num_before)
    blocks = tuple(scheduled(block) for block in planned)
    return Frame(tokens, frame.step, blocks, shares)


def _remaining_plans(frame: Frame) -> dict[int, BlockPlan]:
    """What is left of the plan of each block, by the block's index."""
    skipped = [frame.block_step, *[0] * len(frame.blocks)]
    return {block.index: block.after(skip) for block, skip in zip(frame.blocks, skipped, strict=False)}
