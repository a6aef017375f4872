"""The published samplers of LLaDA's relatives, token for token and step for step."""

import numpy as np
import pytest
import torch

from llada_core import GenerationParams, denoise, load_model
from llada_core.diffusion.loss import row_losses, token_normalizer
from llada_core.diffusion.noise import Corrupted
from llada_core.sampling.generate import finish
from llada_core.sampling.params import EndThinking
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.llada_core.model.architectures.test_family import CASES, FAMILY, MODELS, network_of

# The families whose sampler is LLaDA's.
LIKE_LLADA = ("illada", "llada_moe")


def params_of(case, **settings):
    published = {**case["params"], **settings}
    if "end_think_token_ids" in published:
        token_ids, boost, power = (
            published.pop(f"end_think_{name}") for name in ("token_ids", "logit_boost", "boost_power")
        )
        published["end_thinking"] = EndThinking(tuple(token_ids), boost, power)
    return GenerationParams(**published, ignore_eos=True)


def prompts_of(case):
    masks = case.get("attention_mask") or [[1] * len(prompt) for prompt in case["prompt_ids"]]
    for prompt, mask in zip(case["prompt_ids"], masks, strict=True):
        yield [token for token, is_token in zip(prompt, mask, strict=True) if is_token]


GENERATED = [pytest.param(family, case, id=case["id"]) for family in LIKE_LLADA for case in CASES[family]["generate"]]


@pytest.fixture(params=["network", "cpu"], scope="module")
def model_of(request):
    """Both ways in which a checkpoint is computed must give the published tokens."""
    if request.param == "network":
        return network_of
    loaded = {(family, model): load_model(FAMILY / family / "models" / model) for family, model in MODELS}
    return lambda family, model: loaded[family, model]


@pytest.mark.parametrize(("family", "case"), GENERATED)
def test_deterministic_cases_are_reproduced_step_for_step(model_of, family, case):
    model = model_of(family, case["model"])
    for row, prompt in enumerate(prompts_of(case)):
        steps = list(denoise(model, prompt, params_of(case)))
        ran = [step for step, counts in enumerate(case["transferred_per_step"]) if np.atleast_1d(counts)[row]]
        assert len(steps) == len(ran)
        changes = sorted(
            (change.position, change.token_id, ran[number], change.confidence)
            for number, step in enumerate(steps)
            for change in step.changes
        )
        positions, tokens, numbers, confidences = map(list, zip(*changes, strict=True))
        assert positions == list(range(case["params"]["gen_length"]))
        assert tokens == case["output_ids"][row]
        assert numbers == case["unmask_step"][row]
        assert confidences == pytest.approx(case["unmask_confidence"][row], abs=1e-4)


# Dream's algorithms → the fields that mean the same.
ALGORITHMS = {"maskgit_plus": "low_confidence", "topk_margin": "margin", "entropy": "entropy"}


def dream_params(case):
    published = case["params"]
    return GenerationParams(
        gen_length=published["max_new_tokens"],
        steps=published["steps"],
        eps=published["eps"],
        remasking=ALGORITHMS[published["alg"]],
        remasking_temperature=published["alg_temp"] or 0,
        temperature=published["temperature"],
        top_k=published["top_k"] or 0,
        top_p=published["top_p"] or 1,
        ignore_eos=True,
    )


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES["dream"]["generate"]])
def test_dreams_sampler_is_reproduced_step_for_step(model_of, case):
    params, model = dream_params(case), model_of("dream", case["model"])
    for row, prompt in enumerate(prompts_of(case)):
        steps = list(denoise(model, prompt, params))
        ran = [step for step, counts in enumerate(case["transferred_per_step"]) if counts[row]]
        assert len(steps) == len(ran)
        changes = sorted(
            (change.position, change.token_id, ran[number])
            for number, step in enumerate(steps)
            for change in step.changes
        )
        positions, tokens, numbers = map(list, zip(*changes, strict=True))
        assert positions == list(range(params.gen_length))
        assert tokens == case["output_ids"][row]
        assert numbers == case["unmask_step"][row]


@pytest.mark.parametrize("model_name", [name for family, name in MODELS if family == "dream"])
def test_all_of_dreams_cases_in_one_batch_give_the_same_tokens(model_of, model_name):
    model = model_of("dream", model_name)
    cases = [case for case in CASES["dream"]["generate"] if case["model"] == model_name]
    canvases = [
        prepare_response(prompt, dream_params(case), Vocabulary.of(model))
        for case in cases
        for prompt in prompts_of(case)
    ]
    finish(model, canvases)
    assert [canvas.response for canvas in canvases] == [row for case in cases for row in case["output_ids"]]


RANDOM = [
    {"remasking": "origin"},
    {"remasking": "origin", "steps": 5, "block_length": 6, "temperature": 0.7},
    {"remasking": "entropy", "remasking_temperature": 0.3, "temperature": 0.2, "top_p": 0.95},
    {"remasking": "low_confidence", "remasking_temperature": 0.5, "steps": 4, "cfg_scale": 1.0},
    {"remasking": "margin", "remasking_temperature": 1.0, "steps_per_block": 3, "block_length": 8, "top_k": 9},
    {"remasking": "random", "steps": 6},
]


def test_random_remasking_gives_the_same_tokens_in_a_batch_as_one_by_one(model_of):
    model = model_of("dream", "tiny-7b-like")
    vocabulary = Vocabulary.of(model)

    def canvases():
        return [
            prepare_response(prompt, GenerationParams(gen_length=16, seed=seed, **settings), vocabulary)
            for seed, settings in enumerate(RANDOM)
            for prompt in ([5, 7, 9], [40, 3, 3, 8, 120, 11])
        ]

    together, alone = canvases(), canvases()
    finish(model, together)
    for canvas in alone:
        finish(model, [canvas])
    assert [canvas.response for canvas in together] == [canvas.response for canvas in alone]
    assert len({tuple(canvas.response) for canvas in together}) == len(together)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES["illada"]["generate_append"]])
def test_appended_blocks_are_reproduced(model_of, case):
    params = params_of(case, method="append", steps=None, steps_per_block=case["params"]["steps"])
    (prompt,) = case["prompt_ids"]
    (expected,), (steps,) = case["output_ids"], case["unmask_step"]
    tokens = {
        change.position: (change.token_id, change.step)
        for step in denoise(model_of("illada", case["model"]), prompt, params)
        for change in step.changes
    }
    # The published loop ends after the block that holds EOS.
    assert [tokens[position] for position in range(len(expected))] == list(zip(expected, steps, strict=True))


@pytest.mark.parametrize(("family", "model_name"), [model for model in MODELS if model[0] in LIKE_LLADA])
def test_all_cases_in_one_batch_give_the_same_tokens(model_of, family, model_name):
    model = model_of(family, model_name)
    canvases, expected = [], []
    for case in CASES[family]["generate"]:
        if case["model"] == model_name:
            for row, prompt in enumerate(prompts_of(case)):
                canvases.append(prepare_response(prompt, params_of(case), Vocabulary.of(model)))
                expected.append(case["output_ids"][row])
    sampler = Sampler(model)
    while open_canvases := [canvas for canvas in canvases if canvas.finish_reason is None]:
        sampler.step(open_canvases)
    assert [canvas.response for canvas in canvases] == expected


@pytest.mark.parametrize(
    ("family", "case"),
    [pytest.param(family, case, id=case["id"]) for family in LIKE_LLADA for case in CASES[family]["loss"]],
)
def test_losses_and_gradients_equal_the_published_ones(family, case):
    network = network_of(family, case["model"])
    network.zero_grad()
    tokens_BL = torch.tensor(case["input_ids"])
    corrupted = Corrupted(
        torch.tensor(case["noisy_ids"]),
        torch.tensor(case["masked_positions"]).bool(),
        torch.tensor(case["p_mask"], dtype=torch.float64),
    )
    normalizer_B = token_normalizer(torch.full((len(tokens_BL),), tokens_BL.shape[1]))
    loss = (row_losses(network, tokens_BL, corrupted) / normalizer_B).sum()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    loss.backward()
    # An expert without tokens has no gradient.
    norms = {name: 0.0 if weight.grad is None else weight.grad.norm() for name, weight in network.named_parameters()}
    for name, norm in case.get("grad_l2_norm", {}).items():
        assert float(norms[name]) == pytest.approx(norm, rel=1e-3, abs=1e-5), name
