"""Recorded answers, from files of `generate` and of clients."""

from dataclasses import asdict

import pytest

from llada_core import denoise, generate
from llada_core.sampling.generate import Trajectory
from llada_core.text.tokenizer import Message
from training.data.files import Record
from training.data.formats import ReadReport
from training.data.trajectories import RecordedAnswer, read_trajectories
from training.errors import DataError

WRITTEN = {"token_ids": [5, 6, 9], "commit_steps": [1, 0, None]}
START = {"mask_token_id": 9, "token_ids": [9, 9, 9], "prompt_tokens": 2}


def read(*values, limit=0):
    report = ReadReport(limit)
    return list(read_trajectories([Record("here", value) for value in values], report)), report


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
        RecordedAnswer([Message("system", "Be brief."), Message("user", "hi")], written),
        RecordedAnswer("Once", written),
    ]
    assert report.format == "generation"


def test_a_recording_has_an_answer_for_each_of_its_runs():
    ids = run(request={"prompt": [3, 4]})
    answers, report = read({"format": "llada-recording", "version": 1, "runs": [run(), ids]})
    written = Trajectory([5, 6, 9], [1, 0, None])
    assert answers == [RecordedAnswer([Message("user", "hi")], written, 2), RecordedAnswer([3, 4], written, 2)]
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


def test_a_recording_says_what_the_sampler_says_of_its_own_run(demo):
    settings = {"gen_length": 8, "block_length": 4, "confidence_threshold": 0.5}
    prompt = [3, 40, 41]
    events = [asdict(event) for event in denoise(demo, prompt, **settings)]
    mask_id = demo.special_tokens.mask_id
    start = {"mask_token_id": mask_id, "token_ids": [mask_id] * 8, "prompt_tokens": 3}
    recorded = {"request": {"prompt": prompt}, "start": start, "steps": events}
    (answer,), _ = read({"format": "llada-recording", "version": 1, "runs": [recorded]})
    assert answer.trajectory == generate(demo, prompt, **settings)[0].trajectory
