import math

import numpy as np
import pytest
import torch

from llada_core.counter_noise import Purpose, uniform
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.proposals import copy_to_host, unpack
from llada_core.sampling.propose import Coordinates, Recipe, draft, draw, gumbel_max, top_k, top_p
from tests.conftest import GOLDEN_CASES


@pytest.mark.parametrize("case", GOLDEN_CASES["gumbel"], ids=lambda case: f"temperature-{case['temperature']}")
def test_gumbel_max_equals_the_published_form(case):
    logits_RV, draws_RV = torch.tensor(case["logits"]), torch.tensor(case["uniform"], dtype=torch.float64)
    assert gumbel_max(logits_RV, draws_RV, case["temperature"]).tolist() == case["argmax"]


def test_draws_follow_the_tempered_softmax():
    logits_V = torch.tensor([1.0, 0.0, -1.0, 2.0])
    count = 20_000
    coordinates = Coordinates(torch.full((count,), 5), torch.zeros(count, dtype=torch.int64), torch.arange(count))
    x0_R = draw(logits_V.expand(count, -1), 0.7, coordinates)
    found_V = torch.bincount(x0_R, minlength=4) / count
    torch.testing.assert_close(found_V, (logits_V / 0.7).softmax(0), atol=0.015, rtol=0)


def test_a_draw_in_parts_is_that_of_all_rows_at_once():
    num_rows, num_columns = 40, 5000  # more than a CPU draws at once
    logits_RV = torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(num_rows)
    coordinates = Coordinates(rows % 3 - 1, rows // 3, rows)
    draws_RV = coordinates.draw_columns(Purpose.GUMBEL, num_columns)
    assert draw(logits_RV, 0.8, coordinates).tolist() == gumbel_max(logits_RV, draws_RV, 0.8).tolist()
    for row in (0, 17, 39):
        one = Coordinates(*(column_R[row : row + 1] for column_R in coordinates))
        alone_V = uniform(row % 3 - 1, Purpose.GUMBEL, row // 3, row, torch.arange(num_columns))
        assert torch.equal(one.draw_columns(Purpose.GUMBEL, num_columns)[0], alone_V)


def test_top_k_and_top_p_limit_the_draw():
    logits_RV = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    assert top_k(logits_RV, 2).isinf().tolist() == [[False, False, True, True]]
    assert top_k(logits_RV, 0) is logits_RV
    # Probabilities .64 .24 .09 .03: the first two reach .8, the first alone .6.
    assert top_p(logits_RV, 0.8, 1.0).isinf().tolist() == [[False, False, True, True]]
    assert top_p(logits_RV, 0.6, 1.0).isinf().tolist() == [[False, True, True, True]]
    assert top_p(logits_RV, 1e-9, 1.0).isinf().tolist() == [[False, True, True, True]]
    # Half the temperature sharpens to .87 .12 …: now one token reaches .8.
    assert top_p(logits_RV, 0.8, 0.5).isinf().tolist() == [[False, True, True, True]]


def proposal_for(model, logits_RV, *, scores_drawn=False, **params):
    # A row for each position of the response, and no more positions than the model has.
    length = min(len(logits_RV), 100)
    canvas = prepare_response([1], GenerationParams(gen_length=length, **params), Vocabulary.of(model))
    coordinates = Coordinates.of([(canvas, 0, np.arange(len(logits_RV)))], logits_RV.device)
    settings = {"scores_drawn": scores_drawn, "vocab_size": model.shape.vocab_size}
    drafted = draft(logits_RV.clone(), Recipe.of(canvas, 0), coordinates, **settings)
    proposals = unpack(copy_to_host([drafted.packed]), 0)
    return proposals.token_ids_R.tolist(), proposals.confidence_R.tolist(), proposals.scores_R.tolist()


@pytest.fixture
def gqa(golden_models):
    return golden_models["tiny-gqa"]  # mask 300, EOS 301, EoT 302; 320 ids, 384 columns


def logits_with(**columns):
    logits_RV = torch.zeros(1, 384)
    for column, value in columns.items():
        logits_RV[0, int(column[1:])] = value
    return logits_RV


def test_mask_and_padding_ids_are_never_proposed_but_count_in_the_confidence(gqa):
    x0, confidence, _ = proposal_for(gqa, logits_with(_300=9.0, _350=8.0, _7=5.0))
    assert x0 == [7]
    total = math.exp(9) + math.exp(8) + math.exp(5) + 381
    assert confidence == [pytest.approx(math.exp(5) / total, rel=1e-5)]


def test_logits_eos_inf_excludes_eos_alone_and_renormalizes(gqa):
    logits_RV = logits_with(_301=9.0, _302=6.0, _7=5.0)
    x0, confidence, _ = proposal_for(gqa, logits_RV, logits_eos_inf=True)
    assert x0 == [302]
    assert confidence == [pytest.approx(math.exp(6) / (math.exp(6) + math.exp(5) + 381), rel=1e-5)]


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_confidence_eos_eot_inf_commits_ends_last_at_every_temperature(gqa, temperature):
    rows = torch.cat((logits_with(_301=9.0, _7=5.0), logits_with(_302=9.0), logits_with(_302=3.0, _7=5.0)))
    x0, confidence, _ = proposal_for(gqa, rows, confidence_eos_eot_inf=True, temperature=temperature)
    assert x0 == [301, 302, 7]
    assert confidence[:2] == [0, 0]
    assert confidence[2] == pytest.approx(math.exp(5) / (math.exp(5) + 381), rel=1e-5)


def test_confidence_eos_eot_inf_has_no_effect_under_random_remasking(gqa):
    logits_RV = logits_with(_301=9.0)
    plain = proposal_for(gqa, logits_RV, remasking="random")
    assert proposal_for(gqa, logits_RV, remasking="random", confidence_eos_eot_inf=True) == plain


def test_the_confidence_is_not_tempered(gqa):
    logits_RV = logits_with(_7=20.0)
    assert proposal_for(gqa, logits_RV, temperature=0.5)[1] == proposal_for(gqa, logits_RV)[1]


def test_margin_and_entropy_score_the_whole_distribution(gqa):
    logits_RV = logits_with(_7=6.0, _8=5.0)
    probabilities = logits_RV[0].double().softmax(0)
    assert proposal_for(gqa, logits_RV, remasking="margin")[2] == [
        pytest.approx(float(probabilities[7] - probabilities[8]), rel=1e-4)
    ]
    assert proposal_for(gqa, logits_RV, remasking="entropy")[2] == [
        pytest.approx(float((probabilities * probabilities.log()).sum()), rel=1e-4)
    ]
    # The reported confidence stays the token's probability under every strategy.
    for remasking in ("low_confidence", "random", "margin", "entropy"):
        assert proposal_for(gqa, logits_RV, remasking=remasking)[1] == [
            pytest.approx(float(probabilities[7]), rel=1e-4)
        ]


def test_a_models_own_rule_scores_the_distribution_that_is_drawn_from(gqa):
    logits_RV = logits_with(_300=9.0, _7=6.0, _8=5.0, _9=4.0)
    # The mask counts in the distribution, though it is never drawn.
    drawn = torch.tensor([9.0, 6.0, 5.0]).double()
    for temperature in (0.0, 0.5):
        probabilities = (drawn / (temperature or 1)).softmax(0)
        settings = {"temperature": temperature, "top_k": 3, "scores_drawn": True}
        _, (confidence,), (score,) = proposal_for(gqa, logits_RV, **settings)
        assert confidence == pytest.approx(float(logits_RV.double().softmax(1)[0, 7]), rel=1e-4)
        assert score == pytest.approx(float(probabilities[1]), rel=1e-4)
        margin = proposal_for(gqa, logits_RV, remasking="margin", **settings)[2]
        assert margin == [pytest.approx(float(probabilities[0] - probabilities[1]), rel=1e-4)]
        entropy = proposal_for(gqa, logits_RV, remasking="entropy", **settings)[2]
        assert entropy == [pytest.approx(float((probabilities * probabilities.log()).sum()), rel=1e-4)]


def test_a_remasking_temperature_draws_in_proportion_to_the_exponential_of_the_scores(gqa):
    # Pairs of rows whose probabilities, the scores, are about 0.9 and 0.6: the first wins by e^0.6 to 1.
    first, second = logits_with(_7=math.log(383 * 9)), logits_with(_7=math.log(383 * 1.5))
    count = 4000
    scores = proposal_for(gqa, torch.cat([first, second] * count), remasking_temperature=0.5)[2]
    wins = sum(a > b for a, b in zip(scores[::2], scores[1::2], strict=True)) / count
    assert wins == pytest.approx(1 / (1 + math.exp(-0.3 / 0.5)), abs=0.025)


def test_entropy_is_finite_where_a_token_is_excluded(gqa):
    assert math.isfinite(proposal_for(gqa, logits_with(), remasking="entropy", logits_eos_inf=True)[2][0])


def test_a_nucleus_of_nothing_is_the_most_probable_token():
    logits_RV = torch.tensor([[3.0, 2.0, 1.0], [0.0, 5.0, 5.0]])
    assert top_p(logits_RV, 0.0, 1.0).isinf().tolist() == [[False, True, True], [True, False, True]]


def test_no_end_token_is_proposed_before_the_least_number_of_tokens(gqa):
    rows = logits_with(_301=9.0, _302=8.0, _7=5.0).expand(4, -1)
    assert proposal_for(gqa, rows, min_tokens=2)[0] == [7, 7, 301, 301]
    stopped = proposal_for(gqa, logits_with(_9=9.0, _7=5.0).expand(4, -1), min_tokens=3, stop_token_ids=frozenset({9}))
    assert stopped[0] == [7, 7, 7, 9]
    # Under `ignore_eos` EOS ends nothing, so nothing keeps it away.
    assert proposal_for(gqa, rows, min_tokens=2, ignore_eos=True)[0] == [301] * 4
