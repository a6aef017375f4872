"""The published samplers of block-causal models, token for token and call for call: LLaDA2.0, LLaDA2.1 and SDAR."""

from dataclasses import replace

import pytest

from llada_core import GenerationParams, load_model
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.llada_core.model.architectures.test_family import CASES, FAMILY, network_of

BLOCK_CAUSAL = ("llada2_moe", "sdar")
MODELS = [(family, model) for family in BLOCK_CAUSAL for model in CASES[family]["special_ids"]]
ALL = [
    (family, case)
    for family in BLOCK_CAUSAL
    for kind in ("generate", "generate_edit")
    for case in CASES[family].get(kind, ())
]

# Where a step commits more tokens than the first block has masks, SDAR's static strategy also writes over the prompt's
# last tokens, which later blocks see. Here a prompt stays as it is; the test changes it to get the published tokens.
WRITES_OVER_PROMPT = "len16-block4-steps2-low_confidence_static-th0.85-prompt7"


def params_of(family, case):
    """The settings that mean the published arguments."""
    published = case["params"]
    settings = {name: published[name] for name in ("gen_length", "block_length")}
    if family == "sdar":
        strategy = published["remasking_strategy"]
        settings["steps_per_block"] = published["denoising_steps"]
        settings["ignore_eos"] = published["stopping_criteria_idx"] is None
        if strategy == "sequential":
            settings["remasking"] = "sequential"
        if strategy == "low_confidence_dynamic":
            settings["confidence_threshold"] = published["confidence_threshold"]
        return GenerationParams(**settings)
    settings |= {"confidence_threshold": published["threshold"], "eos_early_stop": published["eos_early_stop"]}
    if "editing_threshold" in published:
        settings |= {name: published[name] for name in ("editing_threshold", "max_post_steps")}
        return GenerationParams(**settings, min_transfer=published["num_to_transfer"])
    steps = min(published["steps"], published["gen_length"] // published["minimal_topk"])
    return GenerationParams(**settings, steps_per_block=steps)


@pytest.fixture(params=["network", "cpu"], scope="module")
def model_of(request):
    """Both ways in which a checkpoint is computed must give the published tokens."""
    if request.param == "network":
        return network_of
    loaded = {(family, model): load_model(FAMILY / family / "models" / model) for family, model in MODELS}
    return lambda family, model: loaded[family, model]


@pytest.fixture(scope="module")
def cache(model_of):
    """With and without a cache the calls that propose tokens are the same; one way to compute checks either."""
    return "exact" if model_of is network_of else "none"


def canvas_of(model, family, case, **settings):
    (prompt,) = case["prompt_ids"]
    return prepare_response(prompt, replace(params_of(family, case), **settings), Vocabulary.of(model))


def run(model, canvas, *, prompt_after_first_step=None):
    """Run a canvas to its end; returns its steps, and all that stood behind the prompt before each and at the end."""
    sampler, steps, states = Sampler(model), [], [canvas.tokens[canvas.layout.denoised].tolist()]
    while canvas.finish_reason is None:
        steps += sampler.step([canvas])
        states.append(canvas.tokens[canvas.layout.denoised].tolist())
        if len(steps) == 1 and prompt_after_first_step is not None:
            canvas.tokens[: canvas.layout.prompt_length] = prompt_after_first_step
    return steps, states


def changes_of(steps):
    return [(number, change) for number, step in enumerate(steps) for change in (*step.changes, *step.overhang)]


@pytest.mark.parametrize(("family", "case"), [pytest.param(*pair, id=pair[1]["id"]) for pair in ALL])
def test_cases_are_reproduced_call_for_call(model_of, cache, family, case):
    model = model_of(family, case["model"])
    canvas = canvas_of(model, family, case, cache=cache)
    prompt = None
    if WRITES_OVER_PROMPT in case["id"]:
        (offset, *first_block), (published,) = case["block_states"][0], case["prompt_ids"]
        prompt = [*published[:offset], *first_block[:-offset]]
        assert prompt != published
    steps, states = run(model, canvas, prompt_after_first_step=prompt)
    changes = changes_of(steps)
    commits = {change.position: number for number, change in changes if change.op == "commit"}
    assert states[-1] == case["final_canvas"]
    assert len(steps) == case.get("forward_calls", case.get("denoise_calls"))
    assert [commits.get(position, -1) for position in range(len(states[-1]))] == case["unmask_step"]
    if "states" in case:
        assert states == case["states"]
    edits = [
        [number, change.position, states[number][change.position], change.token_id]
        for number, change in changes
        if change.op == "edit"
    ]
    assert edits == case.get("edits", [])
    if cache == "exact":
        # The prompt's whole blocks are written at once. The last block is not: nothing reads it.
        finished = len({step.block for step in steps}) - 1
        has_prefix = canvas.layout.prompt_length >= canvas.layout.block_length
        assert sum(step.cache_passes for step in steps) == finished + has_prefix
        if "model_calls" in case:
            assert finished + has_prefix == case["model_calls"] - case["denoise_calls"] - 1
    expected = case["output_ids"][: case["params"]["gen_length"]]
    assert canvas.text_ids == expected[: len(canvas.text_ids)]
    end = expected[len(canvas.text_ids) :]
    assert not end or end[0] in canvas.layout.end_ids


@pytest.mark.parametrize(("family", "model_name"), MODELS)
def test_all_cases_in_one_batch_give_the_same_tokens(model_of, family, model_name):
    model = model_of(family, model_name)
    cases = [case for family_, case in ALL if (family_, case["model"]) == (family, model_name)]
    cases = [case for case in cases if WRITES_OVER_PROMPT not in case["id"]]
    canvases = [canvas_of(model, family, case, cache=("none", "exact")[i % 2]) for i, case in enumerate(cases)]
    sampler = Sampler(model)
    while open_canvases := [canvas for canvas in canvases if canvas.finish_reason is None]:
        sampler.step(open_canvases)
    for canvas, case in zip(canvases, cases, strict=True):
        assert canvas.tokens[canvas.layout.denoised].tolist() == case["final_canvas"], case["id"]
