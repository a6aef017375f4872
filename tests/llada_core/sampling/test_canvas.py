import numpy as np

from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling
from llada_core.sampling.proposals import Proposals

MASK, EOS, EOT = 319, 317, 318


def write(canvas, *tokens):
    """Commit these tokens at the first positions that the next step proposes."""
    positions = canvas.proposal_positions()
    ids = np.full(len(positions), 9)
    ids[: len(tokens)] = tokens
    scores = -np.arange(len(positions), dtype=float)
    return commit(canvas, positions, ids, np.full(len(positions), 0.5), scores)


def commit(canvas, positions, ids, confidence, scores):
    nothing_AR = np.zeros((0, len(positions)))
    proposals = Proposals(ids, confidence, scores, np.zeros(len(positions)), nothing_AR, nothing_AR)
    return canvas.commit(positions, proposals)


def test_the_last_block_may_be_shorter(make):
    canvas = make(gen_length=10, block_length=4)
    steps = []
    while canvas.finish_reason is None:
        steps.append((canvas.schedule.block.index, canvas.schedule.block.start, canvas.schedule.block.stop))
        write(canvas)
    assert steps == [(0, 0, 4)] * 4 + [(1, 4, 8)] * 4 + [(2, 8, 10)] * 2


def test_ties_go_to_the_left(make):
    canvas = make(gen_length=4, steps=2)
    positions = canvas.proposal_positions()
    event = commit(canvas, positions, np.array([5, 6, 7, 8]), np.full(4, 0.5), np.zeros(4))
    assert [change.position for change in event.changes] == [0, 1]


def test_the_text_is_final_once_an_end_token_has_no_mask_left_of_it(make):
    canvas = make(gen_length=8, block_length=8)
    assert write(canvas, 5).text_length == 1
    event = write(canvas, EOT)
    assert (event.finish_reason, event.text_length, event.masked) == ("stop", 1, 6)
    assert canvas.text_ids == [5]
    assert canvas.response == [5, EOT] + [MASK] * 6


def test_an_end_token_with_masks_left_of_it_waits(make):
    canvas = make(gen_length=3)
    positions = canvas.proposal_positions()
    event = commit(canvas, positions, np.array([5, 6, EOS]), np.full(3, 0.5), np.array([0.1, 0.2, 0.9]))
    assert event.finish_reason is None
    assert write(canvas, 5).finish_reason is None
    assert write(canvas, 6).finish_reason == "stop"
    assert canvas.text_ids == [5, 6]


def test_ignore_eos_runs_to_the_end_but_stop_token_ids_still_end(make):
    canvas = make(gen_length=3, ignore_eos=True, stop_token_ids=frozenset({7}))
    assert write(canvas, EOS).finish_reason is None
    assert write(canvas, 7).finish_reason == "stop"
    assert canvas.text_ids == [EOS]


def test_a_full_canvas_without_an_end_finishes_by_length(make):
    canvas = make(gen_length=2)
    write(canvas, 3)
    assert write(canvas, 4).finish_reason == "length"


def test_origin_shows_only_the_blocks_reached(make):
    canvas = make(gen_length=8, block_length=4, method="semi_autoregressive_origin")
    assert canvas.visible_length == 2 + 4
    for _ in range(4):
        write(canvas)
    assert canvas.visible_length == 2 + 8


def test_guidance_masks_prompt_and_pinned_tokens(make):
    canvas = make(gen_length=4, pinned={1: [5, 6]}, cfg_scale=1.0)
    assert canvas.response == [MASK, 5, 6, MASK]
    write(canvas, 8)
    assert canvas.layout.passes(canvas.tokens, is_guided=True)[1].tolist() == [MASK, MASK, 8, MASK, MASK, MASK]
    assert canvas.forward_passes == 2


def test_a_response_fixed_whole_needs_no_step(make):
    canvas = make(gen_length=2, pinned={0: [5, 6]})
    assert (canvas.finish_reason, canvas.text_ids) == ("length", [5, 6])


def infill(tiny, segments, **params):
    return prepare_infilling(segments, GenerationParams(**params), Vocabulary.of(tiny))


def test_infilling_skips_blocks_without_gaps_and_steps_default_to_the_masks(tiny):
    canvas = infill(tiny, [[1, 2, 3, 4], Gap(2), [5, 6], Gap(1), [7]], block_length=4, cfg_scale=1.0)
    assert canvas.response == [1, 2, 3, 4, MASK, MASK, 5, 6, MASK, 7]
    assert canvas.params.steps == 3
    assert canvas.layout.passes(canvas.tokens, is_guided=True)[1].tolist() == [MASK] * 10
    assert [write(canvas).block for _ in range(3)] == [1, 1, 2]
