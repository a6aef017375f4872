"""Recorded answers, from files of `generate` and of clients."""

from dataclasses import asdict

import pytest

from llada_core import denoise, generate
from llada_core.sampling.generate import Trajectory
from llada_core.text.tokenizer import Message
from training.data.files import Record
from training.data.formats import ReadReport
from training.data.trajectories import Learner, RecordedAnswer, read_trajectories
from training.errors import DataError

WRITTEN = {"token_ids": [5, 6, 9], "commit_steps": [1, 0, None]}
MASKING = {"position": 1, "token_id": 9}
START = {"mask_token_id": 9, "token_ids": [9, 9, 9], "prompt_tokens": 2}


LEARNER = Learner(mask_id=9, num_tokens=100)


def read(*values, limit=0, learner=LEARNER):
    report = ReadReport(limit)
    records = [Record(f"line {number}", value) for number, value in enumerate(values, start=1)]
    return list(read_trajectories(records, report, learner)), report


def run(**changes):
    steps = [
        {"step": 0, "changes": [{"position": 1, "token_id": 6}]},
        {"step": 1, "changes": [{"position": 0, "token_id": 5}]},
    ]
    return {"request": {"messages": [{"role": "user", "content": "hi"}]}, "start": START, "steps": steps} | changes


def test_a_line_of_generate_is_a_prompt_and_what_was_written_when():
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    answers, report = read(
        {"prompt": chat, "text": "x", "trajectory": WRITTEN}, {"prompt": "Once", "trajectory": WRITTEN}
    )
    written = Trajectory([5, 6, 9], [1, 0, None])
    assert answers == [
        RecordedAnswer([Message("system", "Be brief."), Message("user", "hi")], written, mask_id=9),
        RecordedAnswer("Once", written, mask_id=9),
    ]
    assert report.format == "generation"


def test_a_recording_has_an_answer_for_each_of_its_runs():
    ids = run(request={"prompt": [3, 4]})
    answers, report = read({"format": "llada-recording", "version": 1, "runs": [run(), ids]})
    written = Trajectory([5, 6, 9], [1, 0, None])
    assert answers == [RecordedAnswer([Message("user", "hi")], written, 2, 9), RecordedAnswer([3, 4], written, 2, 9)]
    assert report.format == "recording"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"prompt": "x", "text": "y"}, 'needs a "trajectory" of token_ids and commit_steps, which `generate'),
        ({"prompt": "x", "trajectory": {"token_ids": [1], "commit_steps": [0, 1]}}, "has 1 token_ids and 2"),
        ({"prompt": "x", "trajectory": {"token_ids": [], "commit_steps": []}}, "has 0 token_ids and 0 commit_steps"),
        ({"prompt": "x", "trajectory": {"token_ids": [True], "commit_steps": [0]}}, "token_ids must be ids"),
        ({"prompt": "x", "trajectory": {"token_ids": [1], "commit_steps": [10**30]}}, "commit_steps must be steps"),
        ({"prompt": "x", "trajectory": {"token_ids": [-1], "commit_steps": [0]}}, "token_ids must be ids"),
        ({"prompt": "x", "trajectory": {"token_ids": [1], "commit_steps": ["0"]}}, "commit_steps must be steps"),
        ({"prompt": "x", "trajectory": {"token_ids": [1], "commit_steps": [None]}}, "no step has written anything"),
        ({"prompt": "x", "trajectory": WRITTEN | {"token_ids": [9, 6, 9]}}, "a step has written 9, the mask id"),
        ({"prompt": "x", "trajectory": {"token_ids": [9], "commit_steps": [0]}}, "a step has written 9, the mask id"),
        ({"prompt": "x", "trajectory": WRITTEN | {"token_ids": [5, 6, 8]}}, "another model, whose mask is 8, not 9"),
        (
            {"prompt": "x", "trajectory": {"token_ids": [5, 9, 8], "commit_steps": [0, None, None]}},
            "must be the mask's wherever nothing was written",
        ),
        ({"prompt": "x", "trajectory": WRITTEN | {"token_ids": [100, 6, 9]}}, "has the token 100, and this model's"),
        ({"prompt": [100], "trajectory": WRITTEN}, "has the token 100, and this model's tokenizer only 100"),
        (
            {"format": "llada-recording", "runs": [run(start={**START, "mask_token_id": 8, "token_ids": [8, 8, 8]})]},
            "was written by another model, whose mask is 8, not 9",
        ),
        (
            {"format": "llada-recording", "runs": [run(steps=[{"step": 0, "changes": [MASKING]}])]},
            "a step has written 9, the mask id",
        ),
        ({"trajectory": WRITTEN}, "needs what was asked: a prompt or messages"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "trajectory": WRITTEN}, "it must be by 'user'"),
        ({"format": "llada-recording"}, 'needs a list of "runs"'),
        ({"format": "llada-recording", "runs": [{}]}, "run 1 is damaged: KeyError('start')"),
        (
            {"format": "llada-recording", "runs": [run(start=START | {"token_ids": [9, 7, 9]})]},
            "run 1 does not begin with masks only",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_a_bad_line(value, problem):
    with pytest.raises(DataError) as error:
        read(value)
    assert problem in str(error.value)


def test_another_models_answers_are_bad_lines_by_their_numbers_as_many_as_are_allowed():
    foreign = {"prompt": "x", "trajectory": WRITTEN | {"token_ids": [5, 6, 8]}}
    own = {"prompt": "x", "trajectory": WRITTEN}
    answers, report = read(own, foreign, {"format": "llada-recording", "runs": [run()]}, limit=1)
    assert (len(answers), report.count) == (2, 1)
    with pytest.raises(DataError, match="line 3: was written by another model"):
        read(own, own, foreign)
    # Where the tokenizer does not name its mask, none can be told.
    assert len(read(foreign, learner=Learner(None, 100))[0]) == 1


def test_a_recording_says_what_the_sampler_says_of_its_own_run(demo):
    settings = {"gen_length": 8, "block_length": 4, "confidence_threshold": 0.5}
    prompt = [3, 40, 41]
    events = [asdict(event) for event in denoise(demo, prompt, **settings)]
    mask_id = demo.special_tokens.mask_id
    start = {"mask_token_id": mask_id, "token_ids": [mask_id] * 8, "prompt_tokens": 3}
    recorded = {"request": {"prompt": prompt}, "start": start, "steps": events}
    learner = Learner(mask_id, demo.shape.vocab_size)
    (answer,), _ = read({"format": "llada-recording", "version": 1, "runs": [recorded]}, learner=learner)
    assert answer.trajectory == generate(demo, prompt, **settings)[0].trajectory
