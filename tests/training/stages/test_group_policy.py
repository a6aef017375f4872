"""Rewarded answers, from their records to the gradient."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from llada_core.diffusion.policy import views_of
from llada_core.diffusion.preference import Draws
from llada_core.sampling.params import GenerationParams
from llada_core.text.special_tokens import EOS_TOKEN
from llada_core.text.tokenizer import Message
from tests.training.fake_samples import EOS
from training.data.batches import Batching
from training.data.dialogues import Turn
from training.data.formats import Question
from training.data.samples import Sample
from training.distributed import World
from training.errors import TrainingError
from training.options.fields import GRPOOptions
from training.rewards import rewards_of
from training.stages.group_policy import GroupPolicy, QuestionEncoder
from training.stages.measurement import Conditions
from training.stages.policy_objective import Updating
from training.stages.practice import Workplace
from training.stages.rollouts import ROLLOUTS_FILE, Asked, Asking, Group, Rollout

GEN_LENGTH, UPDATES, CLIP, BETA = 4, 3, 0.1, 0.3
PARAMS = GenerationParams(gen_length=GEN_LENGTH, temperature=1.0, steps=2)
WORLD = World(0, 1, torch.device("cpu"))


def stage(*rewards, estimator="coupled", beta=BETA):
    asking = Asking(PARAMS, rewards_of(rewards or ("length",)), 3, scale_rewards=True)
    return GroupPolicy(32, asking, Updating(estimator, 0.2, beta, CLIP, UPDATES, GEN_LENGTH))


class Prompts:
    """Samples as the encoder writes them: prompts of some ids, and the bytes of their records."""

    groups = np.arange(3)
    digest = "fake"

    def __init__(self):
        self.prompts = [[7, 11, 13], [8, 9], [20, 21, 22, 23]]
        self.known = [
            json.dumps({"prompt": [{"role": "user", "content": f"é{n}"}], "record": {"answer": "x"}}).encode()
            for n in range(3)
        ]
        self.prompt_lengths = np.array([len(ids) for ids in self.prompts])
        self.suffix_lengths = np.array([len(known) for known in self.known])
        self.lengths = self.prompt_lengths + self.suffix_lengths

    def __len__(self):
        return 3

    def __getitem__(self, index):
        ids = np.array([*self.prompts[index], *self.known[index]], dtype=np.int32)
        return Sample(ids, len(self.prompts[index]), len(self.known[index]), (len(ids),))


def batch_of(step=0, part=slice(None)):
    planner = stage().planner(Prompts(), Batching(3, seed=0, eos_id=EOS, repeats=UPDATES))
    return planner.collate(planner.plan(step), part)


def objective_of(networks, **settings):
    policy, reference = networks
    return stage(**settings).objective(policy, seed=5, reference=lambda: reference)


def answers(asked):
    """Answers of several lengths, as if a policy had written them that was a little different."""
    rng = np.random.default_rng(asked.key.sample)
    rollouts = []
    for length, advantage in ((2, 1.3), (4, -0.9), (1, -0.4)):
        ids = rng.integers(5, 300, length).tolist()
        known = [(-5.6 + rng.normal(0, 0.3, length)).tolist() for _ in range(1, UPDATES)]
        rollouts.append(Rollout("", ids, {"length": 0.5}, advantage, advantage, known))
    return Group(asked, rollouts)


def fill(objective, batch):
    objective.groups.update({asked.key: answers(asked) for asked in Asked.from_batch(batch)})


def test_a_sample_is_the_prompt_and_behind_it_the_record_whatever_it_says(demo_tokenizer):
    record = {"prompt": "¿Qué? 😀", "answer": "«7»", "level": {"a": [1, None]}}
    encoder = QuestionEncoder(
        demo_tokenizer, eos_id=demo_tokenizer.token_to_id(EOS_TOKEN), longest_prompt=40, needs_answer=True
    )
    (sample,) = encoder.encode([Question([Turn("user", record["prompt"])], record)])
    assert sample.ids[: sample.prompt_length] == demo_tokenizer.encode_chat([Message("user", record["prompt"])])
    known = json.loads(bytes(sample.ids[sample.prompt_length :]))
    assert known == {"prompt": [{"role": "user", "content": record["prompt"]}], "record": record}
    long = Question([Turn("user", "long " * 40)], record)
    assert not list(encoder.encode([long])) and encoder.num_dropped == 1


def test_the_prompts_of_a_batch_are_read_back_and_stay_for_all_updates():
    batches = [batch_of(step) for step in range(UPDATES + 1)]
    read = [list(Asked.from_batch(batch)) for batch in batches]
    assert [batch.repeat for batch in batches] == [0, 1, 2, 0]
    assert read[0] == read[1] == read[2] and read[3] != read[0]
    prompts = Prompts()
    for asked in read[0]:
        assert asked.ids == prompts.prompts[asked.key.sample]
        assert asked.prompt[0]["content"] == f"é{asked.key.sample}" and asked.record == {"answer": "x"}


@pytest.mark.parametrize("estimator", ["coupled", "one_step"])
@pytest.mark.parametrize("update", [0, 2])
def test_the_gradient_is_that_of_computing_every_token_by_itself(networks, estimator, update):
    policy, reference = networks
    objective, batch = objective_of(networks, estimator=estimator), batch_of(update)
    fill(objective, batch)
    loss, figures = objective(batch)
    loss.backward()
    gradients = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()

    mask_id, total, divergences, clipped = policy.special_tokens.mask_id, 0, [], []
    for asked in Asked.from_batch(batch):
        group = objective.groups[asked.key]
        for member, rollout in enumerate(group.rollouts):
            responses = objective._responses([replace(group, rollouts=[rollout])])
            sample, epoch = (torch.tensor([number]) for number in asked.key)
            draws = Draws.of(
                5, sample, epoch, torch.tensor([update * 3 + member]), num_draws=1, length=len(asked.ids) + GEN_LENGTH
            )
            views = views_of(responses, draws, estimator=estimator, mask_id=mask_id, prompt_masking=0.2)
            losses = []
            for place, token in enumerate(rollout.token_ids, start=len(asked.ids)):
                (row,) = (view for view in range(len(views.tokens_BL)) if views.masked_BL[view, place])
                ours, theirs = (
                    network(views.tokens_BL[row][None]).logits[0, place].log_softmax(dim=-1)[token]
                    for network in (policy, reference)
                )
                known = rollout.log_probs[update - 1][place - len(asked.ids)] if update else ours.detach()
                ratio, difference = (ours - known).exp(), theirs.detach() - ours
                gains = [ratio * rollout.advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * rollout.advantage]
                divergence = difference.exp() - 1 - difference
                losses.append(-min(gains) + BETA * divergence)
                divergences.append(divergence.item() / len(rollout.token_ids))
                clipped.append((gains[1] < gains[0]).item() / len(rollout.token_ids))
            total = total + torch.stack(losses).mean() / 9
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-4, abs=1e-6)
    for weight, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, weight.grad, atol=1e-5, rtol=1e-3)
    assert float(figures["kl"][0]) == pytest.approx(sum(divergences), rel=1e-3)
    assert float(figures["clip_share"][0]) == pytest.approx(sum(clipped), abs=1e-9)
    assert (sum(clipped) > 0) == (update > 0)


def test_micro_batches_add_up_to_the_loss_of_the_step(networks):
    objective, whole = objective_of(networks), batch_of(1)
    fill(objective, whole)
    parts = [objective(batch_of(1, slice(start, start + 1))) for start in range(3)]
    together = objective(whole)
    torch.testing.assert_close(sum(part.loss for part in parts), together.loss, rtol=1e-4, atol=1e-7)
    for name, figure in together.figures.items():
        torch.testing.assert_close(sum(part.figures[name] for part in parts), figure, rtol=1e-4, atol=1e-6)


def test_without_beta_there_is_no_reference(networks):
    policy, _ = networks

    def refuse():
        raise AssertionError("a reference was made")

    objective = stage(beta=0.0).objective(policy, seed=5, reference=refuse)
    fill(objective, batch_of())
    assert objective(batch_of()).figures["kl"].tolist() == [0.0, 9.0]
    assert stage().has_reference and not stage(beta=0.0).has_reference


@pytest.fixture
def workplace(demo_tokenizer, tmp_path):
    return Workplace(WORLD, demo_tokenizer, tmp_path, seed=5)


def practised(networks, workplace, *steps):
    """The objective after steps without training, and its practice."""
    objective = objective_of(networks)
    practice = stage("length", "0.5*format:.*a.*").practice(objective, workplace)
    for step in steps:
        practice.run(step, batch_of(step))
    return objective, practice


def test_answers_depend_on_their_coordinates_and_not_on_their_batch(networks, workplace):
    objective, practice = practised(networks, workplace, 0)
    together = dict(objective.groups)
    for row in range(3):
        practice.run(0, batch_of(0, slice(row, row + 1)))
        ((key, group),) = objective.groups.items()
        assert [one.token_ids for one in group.rollouts] == [one.token_ids for one in together[key].rollouts]
    texts = {tuple(one.token_ids) for group in together.values() for one in group.rollouts}
    assert len(texts) >= 8
    practice.run(UPDATES, batch_of(UPDATES))
    assert {tuple(one.token_ids) for group in objective.groups.values() for one in group.rollouts} != texts


def test_what_was_measured_at_first_is_what_the_first_weights_say_in_later_updates(networks, workplace):
    objective, _ = practised(networks, workplace, 0)
    for step in range(UPDATES):
        # Nothing was trained: every ratio is 1, and the loss is that of the divergence.
        assert objective(batch_of(step)).figures["clip_share"].tolist() == [0.0, 9.0]
    group = next(iter(objective.groups.values()))
    assert [len(one.log_probs) for one in group.rollouts] == [UPDATES - 1] * 3
    assert sum(one.advantage for one in group.rollouts) == pytest.approx(0, abs=1e-9)


def test_every_group_is_logged_and_a_run_goes_on_from_the_log_between_two_updates(networks, workplace):
    objective, _ = practised(networks, workplace, 0, UPDATES)
    lines = (workplace.output_dir / ROLLOUTS_FILE).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1] * 3 + [1 + UPDATES] * 3
    assert records[0]["answer"] == "x" and records[0]["rollouts"][0]["scores"].keys() == {"length", "format:.*a.*"}
    held = dict(objective.groups)
    # The next policy is another; what it finds is what was written. A line that was cut short is left out.
    with (workplace.output_dir / ROLLOUTS_FILE).open("a") as file:
        file.write('{"step": 99')
    with torch.no_grad():
        for weight in networks[0].parameters():
            weight.mul_(1.1)
    resumed, practice = practised(networks, workplace, UPDATES + 1)
    assert resumed.groups == held
    planner = stage().planner(Prompts(), Batching(3, seed=0, eos_id=EOS, repeats=UPDATES))
    assert [practice.is_due(planner.plan(step)) for step in (UPDATES + 1, 2 * UPDATES)] == [False, True]
    assert (workplace.output_dir / ROLLOUTS_FILE).read_text().splitlines() == lines
    # From the first step again: the answers after it are dropped.
    practised(networks, workplace, 0)
    records = [json.loads(line) for line in (workplace.output_dir / ROLLOUTS_FILE).read_text().splitlines()]
    assert [record["step"] for record in records] == [1] * 3


def test_weights_that_are_not_finite_end_the_run_with_the_step_and_advice(networks, workplace):
    with torch.no_grad():
        networks[0].final_norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 1: .* Try a lower --learning-rate"):
        practised(networks, workplace, 0)


def test_validation_answers_greedily_and_the_same_every_time(networks, demo_tokenizer):
    objective = objective_of(networks)
    conditions = Conditions(3, 0, WORLD, lambda: False, demo_tokenizer)
    first, again = (stage("length").validate(objective, Prompts(), conditions) for _ in range(2))
    assert first == again and first.loss == -first.figures["val_reward"]
    assert stage().validate(objective, Prompts(), replace(conditions, is_stopping=lambda: True)) is None


@pytest.mark.parametrize(("micro_batch_size", "at_once"), [(1, 8), (2, 16), (None, 32)])
def test_as_many_prompts_are_answered_at_once_as_are_trained_at_once(micro_batch_size, at_once, demo):
    options = GRPOOptions(
        model_name_or_path="base", train_data_path=["prompts.jsonl"], output_dir="out", max_steps=1, max_length=256,
        reward=["length"], micro_batch_size=micro_batch_size,
    )  # fmt: skip
    policy = GroupPolicy.from_options(options, demo.shape)
    assert policy.asking.batch_size == at_once == policy.work.answering.num_canvases
