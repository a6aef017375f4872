"""The published sampler, token for token and step for step."""

import pytest

from llada_core import GenerationParams, denoise
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.conftest import GOLDEN_CASES


@pytest.fixture(params=["network", "cpu"])
def models(request, golden_networks, golden_models):
    """Both ways in which a checkpoint is computed must give the published tokens."""
    return {"network": golden_networks, "cpu": golden_models}[request.param]


def rows_of(case):
    """(prompt without its padding, index of the row) for every row of a recorded batch."""
    for row, prompt in enumerate(case["prompt_ids"]):
        keep = case["attention_mask"][row] if case["attention_mask"] else [1] * len(prompt)
        yield row, [token for token, is_token in zip(prompt, keep, strict=True) if is_token]


def params_of(case, **changes):
    return GenerationParams(**case["params"], ignore_eos=True, **changes)


def committing_steps(case, row):
    """The reference's steps that commit something in this row, which are the ones that run here."""
    return [step for step, counts in enumerate(case["transferred_per_step"]) if counts[row]]


@pytest.mark.parametrize("case", GOLDEN_CASES["generate"], ids=lambda case: case["id"])
def test_deterministic_cases_are_reproduced_step_for_step(models, case):
    model = models[case["model"]]
    params = params_of(case)
    mask_id = case_mask(case)
    for row, prompt in rows_of(case):
        steps = list(denoise(model, prompt, params))
        ran = committing_steps(case, row)
        assert case["forward_calls"] == len(case["transferred_per_step"])
        assert len(steps) == len(ran)
        canvas = [mask_id] * params.gen_length
        if "states" in case:
            assert case_states(case, row)[0] == canvas
        for number, step in enumerate(steps):
            assert step.step == number
            for change in step.changes:
                canvas[change.position] = change.token_id
                assert case["unmask_step"][row][change.position] == ran[number]
                assert case["unmask_confidence"][row][change.position] == pytest.approx(change.confidence, abs=1e-4)
            assert step.masked == canvas.count(mask_id)
            if "states" in case:
                assert case_states(case, row)[ran[number] + 1] == canvas
        assert canvas == case["output_ids"][row]


def case_mask(case):
    return GOLDEN_CASES["special_ids"][case["model"]]["mask_id"]


def case_states(case, row):
    return [state[row] for state in case["states"]]


def test_some_recorded_cases_hold_their_states():
    assert sum("states" in case for case in GOLDEN_CASES["generate"]) >= 5


@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
def test_all_cases_in_one_batch_give_the_same_tokens(models, model_name):
    model = models[model_name]
    canvases, expected = [], []
    for case in GOLDEN_CASES["generate"]:
        if case["model"] == model_name:
            for row, prompt in rows_of(case):
                canvases.append(prepare_response(prompt, params_of(case), Vocabulary.of(model)))
                expected.append(case["output_ids"][row])
    sampler = Sampler(model)
    while open_canvases := [canvas for canvas in canvases if canvas.finish_reason is None]:
        sampler.step(open_canvases)
    assert [canvas.response for canvas in canvases] == expected


@pytest.mark.parametrize("case", GOLDEN_CASES["stochastic"], ids=lambda case: case["id"])
def test_stochastic_cases_keep_schedule_and_block_order(models, case):
    model = models[case["model"]]
    for row, prompt in rows_of(case):
        steps = list(denoise(model, prompt, params_of(case, seed=case["torch_manual_seed"])))
        assert [len(step.changes) for step in steps] == [n[row] for n in case["transferred_per_step"] if n[row]]
        blocks = [change.position // case["params"]["block_length"] for step in steps for change in step.changes]
        assert blocks == sorted(blocks)


@pytest.mark.parametrize("case", GOLDEN_CASES["errors"], ids=lambda case: case["id"])
def test_settings_that_fail_in_the_published_code_work_or_name_the_field(models, case):
    model = models[case["model"]]
    for _, prompt in rows_of({"attention_mask": None, **case}):
        try:
            steps = list(denoise(model, prompt, params_of(case)))
        except ValueError as error:
            assert error.field in str(error)
        else:
            assert steps[-1].masked == 0


@pytest.mark.parametrize("case", GOLDEN_CASES["quirks"], ids=lambda case: case["id"])
def test_a_mask_in_the_prompt_is_refused_where_the_published_code_leaves_masks_behind(models, case):
    model = models[case["model"]]
    with pytest.raises(ValueError, match=r"the mask id.*canvas"):
        next(denoise(model, case["prompt_ids"][0], params_of(case)))
