from typing import get_args

import pytest

from llada_core import GenerationParams, InvalidParameterError
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.params import PRESETS, Cache, ParallelRule, Preset, Remasking, ScheduleName
from llada_core.sampling.schedule import SCHEDULES
from llada_core.sampling.scores import SCORES


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_documented_settings(name):
    assert GenerationParams.with_preset(name, gen_length=16) == GenerationParams(gen_length=16, **PRESETS[name])


def test_a_setting_given_beside_a_preset_wins():
    params = GenerationParams.with_preset("fast", entropy_bound=0.5, cache="prefix")
    assert params.entropy_threshold is None
    assert (params.entropy_bound, params.cache) == (0.5, "prefix")


def test_what_a_presets_cache_or_window_cannot_stand_beside_drops_them():
    assert GenerationParams.with_preset("fast", cache="none").cache_refresh_interval is None
    origin = GenerationParams.with_preset("fast", method="semi_autoregressive_origin")
    assert origin.suffix_window is None
    assert origin.altered("fast").suffix_window is None
    several = GenerationParams(entropy_bound=0.1, active_blocks=3)
    assert several.altered(steps=4).active_blocks == several.altered("exact").active_blocks == 1
    assert several.altered(entropy_threshold=0.1).active_blocks == 3


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 8},
        {"steps_per_block": 8},
        {"schedule": "timestep"},
        {"confidence_threshold": 0.9},
        {"remasking": "random"},
        {"remasking": "origin"},
    ],
    ids=str,
)
def test_what_excludes_a_presets_parallel_rule_drops_it_and_leaves_the_rest(setting):
    params = GenerationParams.with_preset("fast", **setting)
    assert params.entropy_threshold is None
    assert params.cache == PRESETS["fast"]["cache"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"remasking": "origin", "eps": 0.01, "temperature": 0.2}),
        ({"remasking": "entropy", "eps": 0.5}, {"remasking": "entropy", "remasking_temperature": 0.3, "eps": 0.5}),
        ({"schedule": "timestep", "temperature": 0.0}, {"remasking": "origin", "eps": 0.01, "temperature": 0.0}),
        ({"schedule": "uniform"}, {"remasking": "low_confidence", "remasking_temperature": 0.3, "eps": None}),
        ({"confidence_threshold": 0.9}, {"remasking": "low_confidence", "eps": None, "temperature": 0.2}),
        ({"preset": "fast"}, {"remasking": "low_confidence", "eps": None, "schedule": None}),
    ],
    ids=str,
)
def test_a_models_defaults_stand_where_nothing_is_named_against_them(settings, expected):
    defaults = {"remasking": "origin", "remasking_temperature": 0.3, "eps": 0.01, "temperature": 0.2}
    params = GenerationParams.with_preset(**{"preset": "exact", "defaults": defaults, **settings})
    assert {name: getattr(params, name) for name in expected} == expected


def test_an_unknown_preset_is_refused_by_name():
    with pytest.raises(InvalidParameterError, match=r"preset is 'quick'; it must be one of exact, balanced, fast"):
        GenerationParams.with_preset("quick")


def test_what_other_steps_of_a_fork_exclude_is_dropped():
    timed = GenerationParams(schedule="timestep", eps=0.1, steps_per_block=4)
    ruled = timed.altered(confidence_threshold=0.9)
    assert (ruled.schedule, ruled.eps, ruled.steps_per_block) == (None, None, None)
    assert ruled.altered(schedule="timestep").parallel_rule is None
    assert timed.altered(steps=3).steps_per_block is None
    assert timed.altered(schedule="uniform").eps is None
    assert (timed.altered(seed=1).eps, timed.altered(seed=1).steps_per_block) == (0.1, 4)


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"confidence_threshold": 0.0}, "confidence_threshold", "above 0 and at most 1"),
        ({"confidence_threshold": 1.1}, "confidence_threshold", "above 0 and at most 1"),
        ({"confidence_factor": -1.0}, "confidence_factor", "above 0"),
        ({"entropy_bound": float("nan")}, "entropy_bound", "from 0"),
        ({"confidence_threshold": 0.9, "entropy_bound": 0.1}, "entropy_bound", "absent beside confidence_threshold"),
        ({"confidence_threshold": 0.9, "steps": 4}, "steps", "follow from the rule"),
        ({"confidence_factor": 1.0, "remasking": "random"}, "remasking", "not be random"),
        ({"confidence_factor": 1.0, "remasking": "origin"}, "remasking", "not be random"),
        ({"confidence_threshold": 0.9, "schedule": "timestep"}, "schedule", "follow from the rule"),
        ({"steps": 8, "steps_per_block": 4}, "steps_per_block", "absent beside steps"),
        ({"schedule": "cosine"}, "schedule", "one of uniform, timestep"),
        ({"schedule": "uniform", "eps": 0.1}, "eps", "absent without the schedule timestep"),
        ({"eps": 1.0}, "eps", "above 0 and below 1"),
        ({"schedule": "uniform", "remasking": "origin"}, "remasking", "needs the schedule timestep"),
        ({"remasking": "random", "remasking_temperature": 0.5}, "remasking_temperature", "random already"),
        ({"remasking_temperature": -1.0}, "remasking_temperature", "from 0 to"),
        ({"cache": "triple"}, "cache", "one of none, prefix, dual, delayed"),
        ({"entropy_threshold": -0.1}, "entropy_threshold", "from 0"),
        ({"active_blocks": 0, "entropy_bound": 0.1}, "active_blocks", "at least 1"),
        ({"suffix_window": -1}, "suffix_window", "at least 0"),
        ({"suffix_window": 8, "method": "semi_autoregressive_origin"}, "suffix_window", "must be absent under method"),
        ({"cache": "dual", "cache_refresh_interval": 0}, "cache_refresh_interval", "at least 1"),
        ({"cache_refresh_interval": 4}, "cache_refresh_interval", "absent without a cache"),
    ],
    ids=str,
)
def test_settings_that_contradict_are_refused_by_field(settings, field, message):
    with pytest.raises(InvalidParameterError, match=message) as refused:
        GenerationParams(**settings)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gen_length", 0),
        ("steps", 0),
        ("block_length", 0),
        ("method", "autoregressive"),
        ("remasking", "high_confidence"),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", -0.1),
        ("min_tokens", -1),
        ("min_tokens", 129),
        ("top_p", 1.1),
        ("cfg_scale", float("inf")),
    ],
)
def test_a_setting_out_of_range_is_named_with_value_and_rule(field, value):
    with pytest.raises(InvalidParameterError, match=rf"{field} is .*; it must be") as caught:
        GenerationParams(**{field: value})
    assert caught.value.field == field


def test_every_named_choice_has_an_implementation():
    assert set(get_args(Remasking)) == set(SCORES)
    assert set(get_args(ScheduleName)) == set(SCHEDULES)
    assert set(get_args(ParallelRule)) == set(PARALLEL_RULES)
    assert set(get_args(Cache)) == set(CACHE_POLICIES)
    assert set(get_args(Preset)) == set(PRESETS)


@pytest.mark.parametrize("name", ["steps", "steps_per_block"])
def test_a_schedule_in_time_has_a_bounded_number_of_steps(name):
    for length, most in ((4, 4096), (5000, 5000)):
        GenerationParams(gen_length=length, schedule="timestep", **{name: most})
        for steps in (most + 1, 10**8, 10**30):
            with pytest.raises(InvalidParameterError, match=f"{name} is {steps}; it must be at most {most}"):
                GenerationParams(gen_length=length, schedule="timestep", **{name: steps})
    # The others run no step without tokens.
    GenerationParams(gen_length=4, **{name: 10**30})


def test_what_takes_the_place_of_a_schedule_in_time_takes_that_of_origin():
    parent = GenerationParams(gen_length=8, schedule="timestep", remasking="origin", steps=8)
    assert parent.altered("fast").remasking == "low_confidence"
    assert parent.altered(confidence_threshold=0.5).remasking == "low_confidence"
    assert parent.altered(schedule="uniform").remasking == "low_confidence"
    assert parent.altered(temperature=0.5).remasking == "origin"
