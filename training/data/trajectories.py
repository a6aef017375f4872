"""Recorded answers: what a sampler wrote after a prompt, and the step that committed each token.

| format     | record                                                                                                |
|------------|-------------------------------------------------------------------------------------------------------|
| generation | a line of `llada-train generate --output FILE --trajectory`                                           |
| recording  | what a client of /v1/denoise has saved: `{"format": "llada-recording", "runs": […]}`                  |
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llada_core.sampling.generate import Trajectory
from llada_core.text.tokenizer import Message
from training.data.dialogues import DialogueReader, DialogueRules, UnusableError, unicode_only
from training.data.files import Record
from training.data.formats import ReadReport

# Above every id and every step that there can be, and within an int64.
_MOST = 1 << 31

_RECORDING = "llada-recording"
_OWN_ANSWERS = "a model learns from its own answers"


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer and its prompt: a chat, a text to go on with, or ids.

    Attributes:
        prompt_length: tokens of the prompt as it was recorded; None if they were not counted.
        mask_id: that of the model that wrote it; None if the record does not say.
    """

    prompt: str | list[Message] | list[int]
    trajectory: Trajectory
    prompt_length: int | None = None
    mask_id: int | None = None


@dataclass(frozen=True, slots=True)
class Learner:
    """The ids of the model that learns, by which an answer of another one can be told.

    Attributes:
        mask_id: None if its tokenizer does not name the mask.
        num_tokens: the size of its vocabulary.
    """

    mask_id: int | None
    num_tokens: int

    def require_own(self, answer: RecordedAnswer) -> None:
        """
        Raises:
            UnusableError: a step has written the mask, or another model has written the answer.
        """
        mask_id = self.mask_id if answer.mask_id is None else answer.mask_id
        if self.mask_id not in (None, mask_id):
            raise UnusableError(
                f"was written by another model, whose mask is {mask_id}, not {self.mask_id}; {_OWN_ANSWERS}"
            )
        written = answer.trajectory
        ids = [id_ for id_, step in zip(written.token_ids, written.commit_steps, strict=True) if step is not None]
        if mask_id in ids:
            raise UnusableError(f"a step has written {mask_id}, the mask id")
        largest = max(*ids, *(token_id for token_id in answer.prompt if isinstance(token_id, int)), 0)
        if largest >= self.num_tokens:
            raise UnusableError(
                f"has the token {largest}, and this model's tokenizer only {self.num_tokens:,}; {_OWN_ANSWERS}"
            )


def read_trajectories(records: Iterable[Record], report: ReadReport, learner: Learner) -> Iterator[RecordedAnswer]:
    """Read recorded answers; a recording of several runs has as many."""
    for record in records:
        problem, report.share = record.problem, record.share
        if problem is None:
            try:
                is_recording = record.value.get("format") == _RECORDING
                answers = _runs(record.value) if is_recording else [_generation(record.value)]
                for answer in answers:
                    learner.require_own(answer)
                yield from answers
                report.format = "recording" if is_recording else "generation"
                continue
            except UnusableError as error:
                problem = str(error)
        report.add(record.place, problem)


def _generation(value: Mapping[str, Any]) -> RecordedAnswer:
    match value.get("trajectory"):
        case {"token_ids": list(ids), "commit_steps": list(steps)} if len(ids) != len(steps) or not ids:
            raise UnusableError(f"has {len(ids)} token_ids and {len(steps)} commit_steps; they must be as many, not 0")
        case {"token_ids": list(ids), "commit_steps": list(steps)}:
            trajectory = _checked(ids, steps)
            return RecordedAnswer(_prompt(value), trajectory, mask_id=_mask_id(trajectory))
    raise UnusableError('needs a "trajectory" of token_ids and commit_steps, which `generate --trajectory` writes')


def _runs(recording: Mapping[str, Any]) -> list[RecordedAnswer]:
    runs = recording.get("runs")
    if not isinstance(runs, list):
        raise UnusableError('needs a list of "runs"')
    return [_run(run, number) for number, run in enumerate(runs, start=1)]


def _run(run: Any, number: int) -> RecordedAnswer:
    try:
        start, request = run["start"], run["request"]
        mask_id = start["mask_token_id"]
        if start.get("parent") is not None or any(token_id != mask_id for token_id in start["token_ids"]):
            raise UnusableError(f"run {number} does not begin with masks only, so nothing tells how it was written")
        ids: list[int] = list(start["token_ids"])
        steps: list[int | None] = [None] * len(ids)
        for step in run["steps"]:
            for change in step["changes"]:
                ids[change["position"]], steps[change["position"]] = change["token_id"], step["step"]
        return RecordedAnswer(_prompt(request), _checked(ids, steps), int(start["prompt_tokens"]), mask_id)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UnusableError(f"run {number} is damaged: {error!r}") from None


def _prompt(value: Mapping[str, Any]) -> str | list[Message] | list[int]:
    """The prompt as the sampler was given it: a text or ids under `prompt`, or turns there or under `messages`."""
    match value.get("prompt") or value.get("messages"):
        case str(text):
            return unicode_only(text)
        case [int(), *_] as ids if all(isinstance(token_id, int) for token_id in ids):
            return ids
        case [*turns] if turns:
            reader = DialogueReader(DialogueRules(allow_empty_answers=True))
            dialogue = reader.prompt({"messages": turns})
            assert not isinstance(dialogue, str)
            return [Message(turn.role, turn.content) for turn in dialogue]
    raise UnusableError("needs what was asked: a prompt or messages")


def _checked(ids: Sequence[Any], steps: Sequence[Any]) -> Trajectory:
    if not all(_is_count(token_id) for token_id in ids):
        raise UnusableError("token_ids must be ids")
    if not all(step is None or _is_count(step) for step in steps):
        raise UnusableError("commit_steps must be steps, or null where nothing was written")
    if all(step is None for step in steps):
        raise UnusableError("no step has written anything")
    return Trajectory(list(ids), list(steps))


def _mask_id(trajectory: Trajectory) -> int | None:
    """The mask id, which stands where nothing was written; None if all was."""
    unwritten = [
        token_id for token_id, step in zip(trajectory.token_ids, trajectory.commit_steps, strict=True) if step is None
    ]
    if len(set(unwritten)) > 1:
        raise UnusableError("token_ids must be the mask's wherever nothing was written")
    return unwritten[0] if unwritten else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST
