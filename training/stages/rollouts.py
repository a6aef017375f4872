"""Rollouts: the model answers the prompts of a step several times each, and the answers are rewarded.

An answer's seed follows from (run seed, sample, epoch, member of the group), so a run that resumes draws the same, and
so do two processes. `rollouts.jsonl` has a line for every prompt of every step. It is also what a run goes on from that
resumes between two updates on the same answers: the weights that wrote them are gone.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.policy import group_advantages
from llada_core.errors import NonFiniteLogitsError
from llada_core.files import new_file
from llada_core.model.network import Network
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.generate import MAX_BATCH_SIZE, finish, text_of
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_responses
from llada_core.text.tokenizer import Tokenizer
from training.data.batches import Batch, StepPlan
from training.errors import TrainingError
from training.rewards import Answered, Reward
from training.stages.practice import Workplace

ROLLOUTS_FILE = "rollouts.jsonl"


class SampleKey(NamedTuple):
    """A prompt in one of the passes over the data."""

    sample: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt as a batch has it: its ids, and the record it was read from with its turns."""

    key: SampleKey
    ids: list[int]
    prompt: Sequence[Mapping[str, str]]
    record: Mapping[str, Any]

    @classmethod
    def from_batch(cls, batch: Batch) -> "Iterator[Asked]":
        """The prompts of a batch whose rows `QuestionEncoder` has written."""
        starts, samples, epochs = (
            values_B.tolist() for values_B in (batch.target_starts_B, batch.samples_B, batch.epochs_B)
        )
        for row, (start, *key) in enumerate(zip(starts, samples, epochs, strict=True)):
            ids = batch.tokens_BL[row, : sum(batch.spans[row])].tolist()
            content = json.loads(bytes(ids[start:]))
            yield cls(SampleKey(*key), ids[:start], content["prompt"], content["record"])


@dataclass(frozen=True, slots=True)
class Rollout:
    """One answer.

    Attributes:
        token_ids: the text's, and the token that ended it, if one did.
        scores: of each reward by its name, without the weights.
        reward: their weighted sum.
        advantage: by how much the reward exceeds those of the group.
        log_probs: for every update but the first, log p of each token by the weights that wrote the answer.
    """

    text: str
    token_ids: list[int]
    scores: dict[str, float]
    reward: float
    advantage: float = 0.0
    log_probs: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to one prompt."""

    asked: Asked
    rollouts: list[Rollout]


# Log p of each token of the answers of some groups, for all updates but the first.
Measure = Callable[[Sequence[Group]], Sequence[Sequence[list[list[float]]]]]


@dataclass(frozen=True, slots=True)
class Asking:
    """How prompts are answered, and the answers rewarded.

    Attributes:
        batch_size: the answers that are written at once.
    """

    params: GenerationParams
    rewards: tuple[Reward, ...]
    group_size: int
    scale_rewards: bool
    batch_size: int = MAX_BATCH_SIZE

    def groups(self, model: Network, tokenizer: Tokenizer, prompts: Sequence[Asked], *, seed: int) -> list[Group]:
        """Let the model answer prompts, each `group_size` times, and reward the answers.

        Raises:
            TrainingError: a reward failed; names reward, prompt and answer.
        """
        seeds = [_seeds(seed, asked.key, self.group_size) for asked in prompts]
        answered = self._answer(model, tokenizer, prompts, self.params, seeds)
        return [
            Group(asked, self._with_advantages(rollouts)) for asked, rollouts in zip(prompts, answered, strict=True)
        ]

    def greedily(self, model: Network, tokenizer: Tokenizer, prompts: Sequence[Asked]) -> list[Rollout]:
        """Let the model answer each prompt once at temperature 0, and reward the answers."""
        params = replace(self.params, temperature=0.0)
        answered = self._answer(model, tokenizer, prompts, params, [[params.seed]] * len(prompts))
        return [rollout for (rollout,) in answered]

    def _answer(
        self,
        model: Network,
        tokenizer: Tokenizer,
        prompts: Sequence[Asked],
        params: GenerationParams,
        seeds: Sequence[Sequence[int]],
    ) -> list[list[Rollout]]:
        vocabulary = Vocabulary.of(model, tokenizer)
        canvases = [
            prepare_responses(asked.ids, params, vocabulary, seeds=own)
            for asked, own in zip(prompts, seeds, strict=True)
        ]
        model.eval()
        finish(model, [canvas for group in canvases for canvas in group], batch_size=self.batch_size)
        model.train()
        return [
            [self._rollout(asked, canvas, tokenizer) for canvas in group]
            for asked, group in zip(prompts, canvases, strict=True)
        ]

    def _rollout(self, asked: Asked, canvas: Canvas, tokenizer: Tokenizer) -> Rollout:
        text, ids = text_of(canvas, tokenizer), _written_ids(canvas)
        answered = Answered(asked.record, asked.prompt, text, len(ids) / canvas.layout.response_length)
        scores = {reward.name: reward.of(answered) for reward in self.rewards}
        total = sum(reward.weight * scores[reward.name] for reward in self.rewards)
        return Rollout(text, ids, scores, total)

    def _with_advantages(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        rewards_BG = torch.tensor([[rollout.reward for rollout in rollouts]], dtype=torch.float64)
        advantages = group_advantages(rewards_BG, scale=self.scale_rewards)[0].tolist()
        return [replace(rollout, advantage=one) for rollout, one in zip(rollouts, advantages, strict=True)]


class Rollouts:
    """The practice of a stage that learns from rewards: answers every batch of prompts once.

    Args:
        groups: filled with the groups of a step by their prompts, for the objective.
        measure: see `Measure`.
    """

    def __init__(
        self,
        model: Network,
        asking: Asking,
        workplace: Workplace,
        *,
        groups: dict[SampleKey, Group],
        measure: Measure,
    ) -> None:
        self._model = model
        self._asking = asking
        self._workplace = workplace
        self._groups = groups
        self._measure = measure
        self._file = workplace.output_dir / ROLLOUTS_FILE
        self._has_begun = False

    def is_due(self, plan: StepPlan) -> bool:
        """See `Practice`: with the first of the steps that train on the same answers, and with the first of all."""
        return plan.repeat == 0 or not self._has_begun

    def run(self, step: int, batch: Batch) -> None:
        """See `Practice`.

        Raises:
            TrainingError: on any process a reward failed or the weights are not finite; or answers are missing that
                were written before.
        """
        prompts, first = list(Asked.from_batch(batch)), step - batch.repeat
        world = self._workplace.world
        if not self._has_begun:
            world.from_main(lambda: self._keep_records(before=first + bool(batch.repeat)))
            self._has_begun = True
        self._groups.clear()
        groups = self._read(prompts, first) if batch.repeat else self._write(prompts, first)
        self._groups.update({group.asked.key: group for group in groups})

    def _write(self, prompts: Sequence[Asked], step: int) -> list[Group]:
        """Answer prompts, and log the answers of all processes."""
        world = self._workplace.world
        groups, problem = [], ""
        try:
            groups = self._asking.groups(self._model, self._workplace.tokenizer, prompts, seed=self._workplace.seed)
        except TrainingError as error:
            problem = str(error)
        except NonFiniteLogitsError as error:
            problem = f"step {step + 1}: {error}. Try a lower --learning-rate or more --warmup-steps"
        problems = [text for text in world.from_all(problem) if text]
        if problems:
            raise world.error(problems[0])
        groups = [_with_log_probs(*pair) for pair in zip(groups, self._measure(groups), strict=True)]
        lines = world.from_all([_line(group, step) for group in groups])
        if world.is_main:
            with self._file.open("a", encoding="utf-8") as file:
                file.writelines(line for part in lines for line in part)
        return groups

    def _read(self, prompts: Sequence[Asked], step: int) -> list[Group]:
        """The answers that were logged for a step."""
        logged = {
            SampleKey(record["sample"], record["epoch"]): record["rollouts"]
            for record in read_rollouts(self._file)
            if record["step"] == step + 1
        }
        missing = [asked.key.sample for asked in prompts if asked.key not in logged]
        if missing:
            raise TrainingError(
                f"{self._file} lacks the answers of step {step + 1} to sample {missing[0]}; --resume-from a step that "
                "is a multiple of --updates"
            )
        return [Group(asked, [Rollout(**one) for one in logged[asked.key]]) for asked in prompts]

    def _keep_records(self, *, before: int) -> None:
        """Drop the records of steps that are run again."""
        if not self._file.exists():
            return
        kept = [record for record in read_rollouts(self._file) if record["step"] <= before]
        with new_file(self._file) as aside:
            aside.write_text("".join(_as_line(record) for record in kept), encoding="utf-8")


def read_rollouts(file: Path) -> Iterator[dict[str, Any]]:
    """The records of `rollouts.jsonl`; a line that a kill cut short is passed over."""
    if file.exists():
        with file.open("rb") as lines:
            for line in lines:
                with suppress(ValueError):
                    yield json.loads(line)


def _seeds(seed: int, key: SampleKey, group_size: int) -> list[int]:
    drawn = uniform(seed, Purpose.ROLLOUT, *key, torch.arange(group_size))
    return [int(one * 2**52) for one in drawn.tolist()]


def _written_ids(canvas: Canvas) -> list[int]:
    """The ids of an answer, with the token that ended it."""
    length, response = canvas.text_end.final_length, canvas.response
    is_ended = length < len(response) and response[length] in canvas.layout.end_ids
    return response[: length + is_ended]


def _with_log_probs(group: Group, measured: Sequence[list[list[float]]]) -> Group:
    pairs = zip(group.rollouts, measured, strict=True)
    return replace(group, rollouts=[replace(rollout, log_probs=log_probs) for rollout, log_probs in pairs])


def _line(group: Group, step: int) -> str:
    key, record = group.asked.key, group.asked.record
    known = {"answer": record["answer"]} if "answer" in record else {}
    rollouts = [asdict(rollout) for rollout in group.rollouts]
    for rollout in rollouts:
        if not rollout["log_probs"]:
            del rollout["log_probs"]
    return _as_line({"step": step + 1, **key._asdict(), "prompt": group.asked.prompt, **known, "rollouts": rollouts})


def _as_line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
