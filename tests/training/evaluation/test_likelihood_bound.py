import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from llada_core import DEMO_FOLDER
from llada_core.diffusion.loss import masked_cross_entropy
from llada_core.diffusion.noise import Corrupted
from tests.llada_core.model.architectures.test_family import network_of
from tests.training.conftest import llada_train, succeed, write_jsonl
from training.data.samples import Sample
from training.distributed import World
from training.evaluation.likelihood_bound import Evaluation, evaluate

ALONE = World(0, 1, torch.device("cpu"))


class OneSample:
    """A single sample of `length` tokens, of which the first is the prompt."""

    def __init__(self, length):
        self.lengths = torch.tensor([length]).numpy()
        self.prompt_lengths, self.suffix_lengths = torch.tensor([1]).numpy(), torch.tensor([0]).numpy()
        self._sample = Sample(torch.arange(10, 10 + length).numpy(), 1, 0, (length,))

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._sample


@torch.no_grad()
def exact_bound(model, tokens, prompt_length, suffix_length=0):
    """The bound, enumerating every mask: the mean over l of the mean cross-entropy of all sets of l tokens."""
    answer = len(tokens) - prompt_length - suffix_length
    by_count = {count: [] for count in range(1, answer + 1)}
    tokens_BL = torch.tensor(tokens)[None]
    for chosen in range(1, 2**answer):
        masked_BL = torch.zeros(1, len(tokens), dtype=torch.bool)
        for place in range(answer):
            masked_BL[0, prompt_length + place] = bool(chosen >> place & 1)
        corrupted = Corrupted(torch.where(masked_BL, model.special_tokens.mask_id, tokens_BL), masked_BL, torch.ones(1))
        by_count[int(masked_BL.sum())].append(float(masked_cross_entropy(model, tokens_BL, corrupted).mean()))
    return sum(sum(means) / len(means) for means in by_count.values()) / answer


def test_the_bound_equals_the_enumeration_of_every_mask(tiny_network):
    samples = OneSample(6)
    expected = exact_bound(tiny_network, samples[0].tokens.tolist(), 1)
    evaluation = evaluate(tiny_network, samples, num_samples=1, noise_levels=4000, seed=0, world=ALONE)
    assert evaluation.nll == pytest.approx(expected, rel=5e-3)
    assert evaluation.perplexity == pytest.approx(math.exp(evaluation.nll))
    assert set(evaluation.by_noise_level) == {"0.2", "0.4", "0.6", "0.8", "1.0"}


def test_the_bound_of_a_block_causal_model_is_that_of_every_block_after_the_ones_before_it(monkeypatch):
    network = network_of("sdar", "tiny-8b-like")
    monkeypatch.setattr(network, "shape", replace(network.shape, block_length=3))
    samples = OneSample(7)
    tokens = samples[0].tokens.tolist()
    # The first block begins with the prompt, and the last one has a single token.
    blocks = {(1, 3): 2, (3, 6): 3, (6, 7): 1}
    expected = sum(length * exact_bound(network, tokens[:stop], start) for (start, stop), length in blocks.items()) / 6
    evaluation = evaluate(network, samples, num_samples=1, noise_levels=1200, seed=0, world=ALONE)
    assert evaluation.nll == pytest.approx(expected, rel=5e-3)
    assert set(evaluation.by_noise_level) == {"0.4", "0.5", "0.7", "1.0"}


def test_of_a_gap_only_the_middle_is_scored_with_both_sides_given(tiny_network):
    samples = OneSample(6)
    samples._sample = replace(samples[0], suffix_length=2)
    scored = evaluate(tiny_network, samples, num_samples=1, noise_levels=4000, seed=0, world=ALONE)
    tokens = samples[0].tokens.tolist()
    assert scored.num_tokens == 3
    assert scored.nll == pytest.approx(exact_bound(tiny_network, tokens, 1, suffix_length=2), rel=5e-3)


def test_the_number_is_the_same_on_every_run_and_another_seed_is_close(tmp_path):
    data = write_jsonl(
        tmp_path / "val.jsonl",
        [{"prompt": f"What is the capital of {c}?", "completion": f"The capital of {c} is {k}."}
         for c, k in (("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"))],
    )  # fmt: skip
    options = ["eval", "--model-name-or-path", DEMO_FOLDER, "--val-data-path", data, "--noise-levels", 8]
    first, again, other = succeed(*options), succeed(*options), succeed(*options, "--seed", 1)
    assert first == again
    assert "NLL bound" in first and " ± " in first and "3 samples" in first
    assert first != other
    printed = json.loads(succeed(*options, "--json"))
    assert {"nll", "standard_error", "perplexity", "num_samples", "num_tokens", "by_noise_level"} < printed.keys()
    assert f"NLL bound {printed['nll']:.1f}" in first


class ManySamples(OneSample):
    """Samples of one token each after the prompt; the token is the index."""

    def __init__(self, number):
        self.lengths = np.full(number, 2)
        self.asked = []

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        self.asked.append(index)
        return Sample(np.array([5, 10 + index % 50]), 1, 0, (2,))


def test_the_scored_samples_are_spread_over_all(tiny_network):
    samples = ManySamples(100)
    evaluate(tiny_network, samples, num_samples=4, noise_levels=1, seed=0, world=ALONE)
    assert samples.asked == [0, 25, 50, 75]
    samples = ManySamples(3)
    evaluate(tiny_network, samples, num_samples=10, noise_levels=1, seed=0, world=ALONE)
    assert samples.asked == [0, 1, 2]


def test_the_standard_error_is_that_of_the_mean_over_samples(tiny_network):
    samples = ManySamples(30)
    alone = [
        evaluate(tiny_network, Shifted(samples, index), num_samples=1, noise_levels=1, seed=0, world=ALONE)
        for index in range(30)
    ]
    assert all(one.standard_error is None for one in alone)
    values = np.array([one.nll for one in alone])
    whole = evaluate(tiny_network, samples, num_samples=30, noise_levels=1, seed=0, world=ALONE)
    assert whole.nll == pytest.approx(values.mean())
    assert whole.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(30))


class Shifted(OneSample):
    """One of many samples, alone."""

    def __init__(self, samples, index):
        self._sample = samples[index]


@pytest.mark.parametrize(
    ("nll", "standard_error", "text"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (1.23456, 0.9, "1.23 ± 0.90"),
        (1.2, None, "1.2000"),
        (2.0, 30.0, "2.0 ± 30.0"),
    ],
)
def test_a_bound_is_printed_with_the_digits_that_mean_something(nll, standard_error, text):
    assert str(Evaluation(nll, standard_error, 1, 1, {})) == text


def test_texts_are_scored_as_packed_documents(tmp_path):
    data = write_jsonl(tmp_path / "val.jsonl", [{"text": "Paris is the capital of France."}] * 9)
    printed = succeed(
        "eval", "--model-name-or-path", DEMO_FOLDER, "--val-data-path", data, "--noise-levels", 2, "--max-length", 16
    )
    assert "16 noise" not in printed and "2 noise levels each" in printed


def test_samples_longer_than_the_model_are_refused(tmp_path):
    data = write_jsonl(tmp_path / "val.jsonl", [{"text": "x"}])
    options = ["eval", "--model-name-or-path", DEMO_FOLDER, "--val-data-path", data]
    assert "it must be at most the model's" in llada_train(*options, "--max-length", 4096).stderr


def test_data_without_a_token_is_named(tmp_path):
    data = write_jsonl(tmp_path / "val.jsonl", [{"text": ""}])
    options = ["eval", "--model-name-or-path", DEMO_FOLDER, "--val-data-path", data, "--max-bad-lines", 1]
    assert "no samples" in llada_train(*options).stderr


def test_data_that_is_missing_is_named():
    result = llada_train("eval", "--model-name-or-path", DEMO_FOLDER, "--val-data-path", "missing.jsonl")
    assert "missing.jsonl: no such file" in result.stderr
