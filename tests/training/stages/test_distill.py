"""Recorded answers, from their tokens to the gradient."""

import json
from dataclasses import replace

import pytest
import torch

from llada_core.diffusion.certainty import UNWRITTEN
from llada_core.sampling.generate import Trajectory
from llada_core.text.special_tokens import EOS_TOKEN, MASK_TOKEN
from llada_core.text.tokenizer import Message
from training.data.batches import Batching
from training.data.samples import Pairs
from training.data.shards import tokenize
from training.data.sources import Source
from training.data.trajectories import RecordedAnswer
from training.distributed import World
from training.errors import DataError
from training.stages.certainty_objective import Forcing
from training.stages.distill import Distillation, TrajectoryEncoder
from training.stages.measurement import Conditions

STAGE = Distillation(24, Forcing(block_length=3, weight=2.0, temperature=0.5))


@pytest.fixture(scope="module")
def mask_and_eos(demo_tokenizer):
    return demo_tokenizer.token_to_id(MASK_TOKEN), demo_tokenizer.token_to_id(EOS_TOKEN)


@pytest.fixture(scope="module")
def samples(demo_tokenizer, mask_and_eos, tmp_path_factory):
    """Answers of two lengths; each token is 20 + its position, and the third of the last block was never written."""
    folder = tmp_path_factory.mktemp("answers")
    mask, eos = mask_and_eos
    lines = [
        {
            "prompt": [30 + number] * (2 + number % 2),
            "trajectory": {
                "token_ids": [20, 21, 22, *([23, 24, 25] if number % 2 else []), eos, 27, mask],
                "commit_steps": [1, 0, 0, *([3, 2, 2] if number % 2 else []), 4, 4, None],
            },
        }
        for number in range(6)
    ]
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    encoder = STAGE.encoder(demo_tokenizer, eos_id=eos)
    return STAGE.samples(tokenize([Source(file.name, file)], encoder, folder / "data", max_bad_lines=0))


def test_answers_of_another_model_are_bad_lines(demo_tokenizer, mask_and_eos, tmp_path):
    mask, eos = mask_and_eos
    for written, problem in (
        ({"token_ids": [4000], "commit_steps": [0]}, "has the token 4000, and this model's tokenizer only 3,072"),
        ({"token_ids": [5, 7], "commit_steps": [0, None]}, f"whose mask is 7, not {mask}"),
        ({"token_ids": [mask], "commit_steps": [0]}, f"a step has written {mask}, the mask id"),
    ):
        file = tmp_path / "answers.jsonl"
        file.write_text(json.dumps({"prompt": [30], "trajectory": written}) + "\n")
        encoder = STAGE.encoder(demo_tokenizer, eos_id=eos)
        with pytest.raises(DataError, match=problem):
            tokenize([Source(file.name, file)], encoder, tmp_path / "data", max_bad_lines=0)


def batch_of(samples, eos, part=slice(None), step=0):
    planner = STAGE.planner(samples, Batching(6, seed=0, eos_id=eos))
    return planner.collate(planner.plan(step), part)


def test_a_sample_is_prompt_canvas_and_steps_and_the_canvas_ends_with_eos(samples, mask_and_eos):
    _, eos = mask_and_eos
    assert isinstance(samples, Pairs)
    sample = samples[1]
    canvas, steps = [20, 21, 22, 23, 24, 25, eos, 27, eos], [1, 0, 0, 3, 2, 2, 4, 4, UNWRITTEN]
    assert sample.tokens.tolist() == [31, 31, 31, *canvas, *steps]
    assert (sample.prompt_length, sample.suffix_length, sample.spans) == (3, 9, (12, 9))


def test_a_chat_is_encoded_as_the_sampler_was_given_it_and_what_is_too_long_is_left_out(demo_tokenizer, mask_and_eos):
    _, eos = mask_and_eos
    chat, written = [Message("user", "hi")], Trajectory([5, 6], [0, 0])
    encoder = TrajectoryEncoder(demo_tokenizer, eos_id=eos, max_length=20)
    (sample,) = encoder.encode([RecordedAnswer(chat, written)])
    assert sample.ids == [*demo_tokenizer.encode_chat(chat), 5, 6, 0, 0]
    (text,) = encoder.encode([RecordedAnswer("Once upon", written)])
    assert text.ids[: text.prompt_length] == demo_tokenizer.encode("Once upon")
    assert not list(encoder.encode([RecordedAnswer([7] * 19, written)])) and encoder.num_dropped == 1
    with pytest.raises(DataError, match="had 4 tokens and now has 2"):
        list(encoder.encode([RecordedAnswer([7, 8], written, 4)]))


def test_the_objective_sees_states_that_the_sampler_visited(samples, mask_and_eos):
    mask, eos = mask_and_eos
    hidden = set()
    for step in range(40):
        rows = STAGE.noisy_rows(batch_of(samples, eos, step=step), mask_id=mask, seed=0)
        for row in rows:
            noisy = row.noisy[row.target_start :]
            assert row.noisy[: row.target_start] == row.clean[: row.target_start]
            assert row.clean[-3:] == [eos, 27, eos]
            hidden.add((len(noisy), *(place for place, token in enumerate(noisy) if token == mask)))
    # Of each block the whole, and without what its first step committed; all that is right of it is hidden.
    assert hidden == {
        (6, 0, 1, 2, 3, 4, 5), (6, 0, 3, 4, 5), (6, 3, 4, 5),
        (9, 0, 1, 2, 3, 4, 5, 6, 7, 8), (9, 0, 3, 4, 5, 6, 7, 8), (9, 3, 4, 5, 6, 7, 8), (9, 3, 6, 7, 8), (9, 6, 7, 8),
    }  # fmt: skip


def test_parts_of_a_step_add_up_to_it(samples, mask_and_eos, networks):
    _, eos = mask_and_eos
    objective = STAGE.objective(networks[0], seed=3, reference=lambda: pytest.fail("there is no reference"))
    whole, figures = objective(batch_of(samples, eos))
    parts = [objective(batch_of(samples, eos, part)) for part in (slice(0, 1), slice(1, 4), slice(4, 6))]
    torch.testing.assert_close(sum(part.loss for part in parts), whole)
    for name in ("cross_entropy", "entropy", "accuracy"):
        torch.testing.assert_close(sum(part.figures[name] for part in parts), figures[name])
    mean = {name: float(total / count) for name, (total, count) in figures.items()}
    assert whole.item() == pytest.approx(mean["cross_entropy"] + 2 * mean["entropy"], rel=1e-5)


def test_validation_measures_the_same_states_every_time_and_stops_when_it_is_told(
    samples, mask_and_eos, networks, demo_tokenizer
):
    objective = STAGE.objective(networks[0], seed=3, reference=lambda: networks[1])
    conditions = Conditions(4, 0, World(0, 1, torch.device("cpu")), lambda: False, demo_tokenizer)
    first, second = (STAGE.validate(objective, samples, conditions) for _ in range(2))
    assert first == second and first is not None
    assert first.loss == pytest.approx(first.figures["val_cross_entropy"] + 2 * first.figures["val_entropy"])
    assert 0 <= first.figures["val_accuracy"] <= 1 and first.figures["val_loss_standard_error"] > 0
    assert STAGE.validate(objective, samples, replace(conditions, is_stopping=lambda: True)) is None
