"""Answers to random patterns and schemas, in any setting, for real sizes of vocabularies: every one is valid."""

import json
import random
import re

import jsonschema_rs
import pytest

from llada_core import GenerationParams
from llada_core.errors import InvalidParameterError
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.constraints.json_schema import schema_pattern
from llada_core.sampling.params import PRESETS
from llada_core.sampling.prepare import prepare_response
from llada_core.sampling.sampler import Sampler
from tests.llada_core.sampling.constraints.pseudo_model import PseudoModel
from tests.llada_core.sampling.constraints.schemas import Schemas
from tests.vocabularies import vocabulary_of

_STRING = r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-f]{4})'


def random_pattern(generator, depth=0):
    """A pattern of JSON values, as a schema would give it."""
    kinds = ["string", "number", "word", "enum"] + ["object", "array"] * (depth < 3)
    match generator.choice(kinds if depth else ["object"]):
        case "string":
            least = generator.randint(0, 3)
            return _STRING + generator.choice(["*", f"{{{least},{least + generator.randint(0, 20)}}}"]) + '"'
        case "number":
            return generator.choice([r"-?(?:0|[1-9]\d{0,5})", r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?"])
        case "word":
            return generator.choice(["true|false", "null", r'"\d{4}-\d{2}-\d{2}"', '"[A-Zé語]{2,5}"'])
        case "enum":
            return "|".join(f'"{"".join(generator.choices("abé 🙂z", k=generator.randint(0, 6)))}"' for _ in range(4))
        case "array":
            item = f"(?:{random_pattern(generator, depth + 1)})"
            return rf"\[(?:{item}(?:, ?{item}){{0,{generator.randint(0, 3)}}})?\]"
        case _:
            fields = [
                f'"{name}": ?(?:{random_pattern(generator, depth + 1)})' for name in "abé"[: generator.randint(0, 3)]
            ]
            return r"\{" + ", ?".join(fields) + r"\}"


def random_request(generator, shortest):
    setting = {
        "gen_length": shortest + generator.choice([0, 1, 3, 17, 40]),
        "block_length": generator.choice([4, 8, 32]),
        "seed": generator.randrange(100),
        "temperature": generator.choice([0.0, 0.0, 0.7, 1.5]),
        "cfg_scale": generator.choice([0.0, 0.0, 1.0]),
        "remasking": generator.choice(["low_confidence", "low_confidence", "margin", "entropy"]),
        "method": generator.choice(["semi_autoregressive_padding", "semi_autoregressive_origin", "fixed_length"]),
    }
    setting["gen_length"] = max(1, setting["gen_length"])
    if setting["method"] == "fixed_length":
        del setting["block_length"]
    preset = generator.choice(list(PRESETS))
    if generator.random() < 0.7:
        setting["cache"] = generator.choice([name for name in CACHE_POLICIES if name != "exact"])
    if preset != "exact":
        setting["active_blocks"] = generator.choice([1, 1, 2, 3])
    return GenerationParams.with_preset(preset, **setting)


def answer_to(constraint, vocabulary, generator):
    """The text of an answer in a random setting, with that setting."""
    params = random_request(generator, constraint.shortest)
    canvas = prepare_response([1, 2, 3], params, vocabulary, constraint=constraint)
    model = PseudoModel(vocabulary, seed=generator.randrange(7), eos_bonus=generator.choice([0.0, 0.0, 5.0, 20.0]))
    sampler = Sampler(model)
    while canvas.finish_reason is None:
        sampler.step([canvas])
    assert canvas.finish_reason == "stop"
    return vocabulary.tokenizer.decode(canvas.text_ids), params


def matches_and_parses(seed, size):
    generator = random.Random(seed)
    vocabulary, pattern = vocabulary_of(size), random_pattern(generator)
    text, params = answer_to(compile_constraint(pattern, vocabulary), vocabulary, generator)
    assert re.fullmatch(pattern, text, re.ASCII), (pattern, params, text)
    json.loads(text)


def satisfies_its_schema(seed, size):
    """Whether a random schema is small enough for a constraint; if so, an answer must satisfy it."""
    schema, vocabulary = Schemas(seed).schema(), vocabulary_of(size)
    try:
        constraint = compile_constraint(schema_pattern(schema, "schema"), vocabulary)
    except InvalidParameterError:
        return False
    text, params = answer_to(constraint, vocabulary, random.Random(seed))
    assert jsonschema_rs.is_valid(schema, json.loads(text), validate_formats=True), (schema, params, text)
    return True


@pytest.mark.parametrize("seed", range(15))
def test_answers_to_random_patterns_match_and_parse(seed):
    matches_and_parses(seed, 4096)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("size", [4096, 126464])
def test_answers_to_a_thousand_random_patterns_match_and_parse(size):
    for seed in range(10_000, 11_000):
        matches_and_parses(seed, size)


def test_answers_to_random_schemas_satisfy_them():
    assert sum(satisfies_its_schema(seed, 4096) for seed in range(25)) > 20


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("size", [4096, 126464])
def test_answers_to_a_thousand_random_schemas_satisfy_them(size):
    num_valid, seed = 0, 10_000
    while num_valid < 1000:
        num_valid += satisfies_its_schema(seed, size)
        seed += 1
    assert seed < 11_200
