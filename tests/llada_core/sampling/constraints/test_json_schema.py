"""Schemas against two independent validators, `json` and pydantic; and everything that is refused, with its path."""

import json
import re
import time
from enum import Enum
from random import Random
from typing import Annotated, Literal

import jsonschema
import jsonschema_rs
import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from llada_core.errors import InvalidParameterError
from llada_core.sampling.constraints.json_schema import (
    ANNOTATIONS,
    MOST_CHARACTERS,
    MOST_DEPTH,
    MOST_SCHEMAS,
    MOST_VALUES,
    RECURSION_DEPTH,
    schema_pattern,
)
from tests.llada_core.sampling.constraints.schemas import Schemas, text_of, value_of


def matches(schema, text):
    return bool(re.fullmatch(schema_pattern(schema, "schema"), text))


def cases(seeds):
    """Random schemas with their patterns, without those too large to be compiled by `re` in an instant."""
    for seed in seeds:
        schema = Schemas(seed).schema()
        try:
            pattern = schema_pattern(schema, "schema")
        except InvalidParameterError as error:
            assert "too large" in str(error)
            continue
        if len(pattern) < 20_000:
            yield schema, pattern, Random(seed)


def require_texts_valid(seeds):
    for schema, pattern, rng in cases(seeds):
        validator = jsonschema_rs.validator_for(schema, validate_formats=True)
        for _ in range(3):
            text = text_of(pattern, rng)
            assert validator.is_valid(json.loads(text)), (schema, text)
            assert re.fullmatch(pattern, text)
        jsonschema.validate(json.loads(text), schema)


def require_values_matched(seeds):
    for schema, pattern, rng in cases(seeds):
        matches = re.compile(pattern).fullmatch
        for _ in range(4):
            value = value_of(schema, rng)
            assert jsonschema_rs.is_valid(schema, value, validate_formats=True), "the test's own values must be valid"
            for separators in ((",", ":"), (", ", ": ")):
                text = json.dumps(value, ensure_ascii=False, separators=separators)
                assert matches(text), (schema, text)


def test_every_text_of_a_random_schema_is_valid():
    require_texts_valid(range(80))


def test_every_value_of_a_random_schema_is_matched_however_it_is_spaced():
    require_values_matched(range(80))


@pytest.mark.fuzz
def test_every_text_and_value_of_two_thousand_random_schemas():
    require_texts_valid(range(1000, 3000))
    require_values_matched(range(1000, 3000))


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0, le=100)


class Square(BaseModel):
    kind: Literal["square"]
    side: int | None = None


class Drawing(BaseModel):
    """A drawing."""

    title: str = Field(max_length=20, description="what it shows")
    colours: list[Colour] = Field(max_length=2)
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    sizes: dict[str, int] = {}
    parts: list["Drawing"] = []


@pytest.mark.parametrize("model", [Circle, Square, Drawing])
@pytest.mark.parametrize("schema_of", [lambda model: model.model_json_schema(), to_strict_json_schema])
def test_texts_of_pydantic_s_schemas_make_its_models(model, schema_of):
    pattern = schema_pattern(schema_of(model), "schema")
    rng = Random(0)
    for _ in range(30):
        model.model_validate_json(text_of(pattern, rng))


def test_members_come_in_the_declared_order_and_any_optional_ones_may_be_missing():
    number = {"type": "integer"}
    properties = dict.fromkeys("abc", number)
    for required in ([], ["a"], ["b"], ["c"], ["a", "c"], ["a", "b", "c"]):
        schema = {"type": "object", "properties": properties, "required": required}
        for present in ("", "a", "b", "c", "ab", "ac", "bc", "abc"):
            text = json.dumps(dict.fromkeys(present, 1))
            assert matches(schema, text) == (set(required) <= set(present)), (required, text)
        assert not matches(schema, '{"b": 1, "a": 1, "c": 1}') and not matches(
            schema, '{"a": 1, "b": 1, "c": 1, "d": 1}'
        )


def test_a_length_counts_characters_however_many_bytes_they_take():
    schema = {"type": "string", "minLength": 2, "maxLength": 3}
    assert matches(schema, '"🎈🎈🎈"') and matches(schema, '"\\"\\\\\\n"')
    assert not matches(schema, '"🎈"') and not matches(schema, '"abcd"')


def test_annotations_say_nothing():
    noted = {"type": "null"} | {name: {"anything": ["at", "all"]} for name in ANNOTATIONS}
    assert schema_pattern(noted, "schema") == "null"


def test_without_a_type_the_keywords_tell_it():
    assert matches({"properties": {"a": {"const": 1}}}, '{"a": 1}')
    assert not matches({"properties": {"a": {"const": 1}}}, "1")
    assert matches({"minLength": 2, "minimum": 5}, '"ab"') and matches({"minLength": 2, "minimum": 5}, "5")
    assert not matches({"minLength": 2, "minimum": 5}, "null")


@pytest.mark.parametrize("schema", [{}, True, {"description": "any"}])
def test_a_schema_that_says_nothing_is_any_value_to_a_depth(schema):
    for text in ("null", "-1.5", '"x"', "[1, [2]]", '{"a": {"b": "c"}}'):
        assert matches(schema, text)
    assert not matches(schema, "[[[1]]]")


def test_a_schema_may_refer_to_itself_to_a_depth():
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
        "required": ["next"],
    }
    schema = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    text = "null"
    for depth in range(RECURSION_DEPTH + 2):
        assert matches(schema, text) == (0 < depth <= RECURSION_DEPTH), depth
        text = f'{{"next": {text}}}'
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}
    assert matches(tree, '{"children": [{"children": []}, {}]}')


@pytest.mark.parametrize("reference", ["#/$defs/a%20b~1c", "#/properties/x/items", "#/anyOf/0"])
def test_a_reference_points_anywhere_in_the_document(reference):
    document = {
        "$defs": {"a b/c": {"const": 1}},
        "definitions": {},
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"const": 1}}, "y": {"$ref": reference}},
        "required": ["y"],
    }
    if "anyOf" in reference:
        document = {"anyOf": [{"const": 1}, {"type": "array", "items": {"$ref": reference}}]}
    assert matches(document, '{"y": 1}' if "anyOf" not in reference else "[1]")


@pytest.mark.parametrize(
    "alternatives",
    [
        [{"type": "string"}, {"type": "integer"}, {"type": "null"}],
        [{"const": "a"}, {"enum": ["b", 1]}, {"const": True}],
        [{"type": "object", "properties": {"k": {"const": kind}}, "required": ["k"]} for kind in "ab"],
        [{"anyOf": [{"const": 1}, {"const": 2}]}, {"const": 3}],
        [{"type": "string", "maxLength": 2}, {"$ref": "#/$defs/number"}],
    ],
)
def test_one_of_takes_alternatives_that_plainly_differ(alternatives):
    schema_pattern({"oneOf": alternatives, "$defs": {"number": {"type": "number"}}}, "schema")


@pytest.mark.parametrize(
    "alternatives",
    [
        [{"type": "integer"}, {"type": "number"}],
        [{"const": 1}, {"enum": [1.0]}],
        [{"const": [1]}, {"const": [1.0]}],
        [{"type": "string", "maxLength": 2}, {"type": "string", "minLength": 3}],
        [{"type": "object", "properties": {"k": {"const": kind}}} for kind in "ab"],
        [{}, {"type": "null"}],
    ],
)
def test_one_of_refuses_alternatives_that_may_overlap(alternatives):
    with pytest.raises(InvalidParameterError, match="may overlap") as caught:
        schema_pattern({"oneOf": alternatives}, "schema")
    assert caught.value.field == "schema.oneOf.1"


@pytest.mark.parametrize(
    "keyword",
    [
        *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "prefixItems", "additionalItems"),
        *("unevaluatedItems", "unevaluatedProperties", "patternProperties", "propertyNames", "minProperties"),
        *("maxProperties", "dependentRequired", "dependentSchemas", "dependencies", "if", "then", "else", "not"),
        *(
            "$dynamicRef",
            "$recursiveRef",
            "contentEncoding",
            "contentMediaType",
            "contentSchema",
            "nullable",
            "Type",
            "",
        ),
    ],
)
def test_every_other_keyword_is_refused_under_its_path(keyword):
    schema = {"type": "object", "properties": {"age": {"type": "integer", keyword: 1}}}
    with pytest.raises(InvalidParameterError, match="not supported") as caught:
        schema_pattern(schema, "response_format.json_schema.schema")
    assert caught.value.field == f"response_format.json_schema.schema.properties.age.{keyword}".rstrip(".")


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (3, ""),
        (None, ""),
        ([], ""),
        (False, ""),
        ({"type": "wat"}, ".type"),
        ({"type": []}, ".type"),
        ({"type": {}}, ".type"),
        ({"anyOf": []}, ".anyOf"),
        ({"anyOf": {}}, ".anyOf"),
        ({"anyOf": [{"type": "null"}, {"format": "uri"}]}, ".anyOf.1.format"),
        ({"allOf": [{}, {}]}, ".allOf"),
        ({"anyOf": [{}], "type": "object"}, ".type"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {}}, "minLength": 1}, ".minLength"),
        ({"enum": [1], "const": 1}, ".enum"),
        ({"$ref": "#/$defs/x"}, ".$ref"),
        ({"$ref": "http://example.org/schema"}, ".$ref"),
        ({"$ref": 7}, ".$ref"),
        ({"$ref": "#"}, ""),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, ""),
        ({"enum": []}, ".enum"),
        ({"enum": "ab"}, ".enum"),
        ({"enum": [1], "type": "string"}, ".enum"),
        ({"enum": ["\ud800"]}, ".enum"),
        ({"const": float("nan")}, ".const"),
        ({"properties": []}, ".properties"),
        ({"properties": {"\ud800": {}}}, ".properties"),
        ({"properties": {"a": 1}}, ".properties.a"),
        ({"properties": {}, "required": ["a"]}, ".required"),
        ({"required": ["a"]}, ".required"),
        ({"properties": {}, "required": "a"}, ".required"),
        ({"properties": {}, "required": [[]]}, ".required"),
        ({"properties": {}, "additionalProperties": {}}, ".additionalProperties"),
        ({"properties": {}, "additionalProperties": 0}, ".additionalProperties"),
        ({"additionalProperties": 0}, ".additionalProperties"),
        ({"items": [{}]}, ".items"),
        ({"items": {"multipleOf": 2}}, ".items.multipleOf"),
        ({"minItems": -1}, ".minItems"),
        ({"minItems": 1.5}, ".minItems"),
        ({"minItems": True}, ".minItems"),
        ({"minItems": 3, "maxItems": 2}, ".minItems"),
        ({"maxLength": 10**9}, ".maxLength"),
        ({"maxLength": float("inf")}, ".maxLength"),
        ({"minLength": 3, "maxLength": 2}, ".minLength"),
        ({"pattern": 1}, ".pattern"),
        ({"pattern": "(?=a)"}, ".pattern"),
        ({"pattern": "a", "maxLength": 3}, ".maxLength"),
        ({"pattern": "^a?$", "minLength": 1}, ".minLength"),
        ({"pattern": "a", "format": "date"}, ".pattern"),
        ({"format": "uri"}, ".format"),
        ({"format": []}, ".format"),
        ({"type": "integer", "minimum": "1"}, ".minimum"),
        ({"type": "integer", "exclusiveMinimum": True}, ".exclusiveMinimum"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, ""),
        ({"type": "integer", "minimum": 10**400}, ""),
        ({"type": "number", "minimum": 0.5}, ""),
    ],
)
def test_a_wrong_value_is_refused_under_its_path(schema, field):
    with pytest.raises(InvalidParameterError) as caught:
        schema_pattern(schema, "schema")
    assert caught.value.field == f"schema{field}"


def nested(depth):
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}, "required": ["a"]}
    return schema


def multiplied(levels):
    """A schema of 5 ** levels once its references are followed."""
    definitions = {f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 5} for level in range(levels)}
    return {"$defs": {**definitions, f"d{levels}": {"type": "null"}}, "$ref": "#/$defs/d0"}


def mutual(number):
    """Schemas that all refer to each other."""
    properties = {str(index): {"$ref": f"#/$defs/{index}"} for index in range(number)}
    return {"$ref": "#/$defs/0", "$defs": {name: {"type": "object", "properties": properties} for name in properties}}


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(nested(900), id="nested"),
        pytest.param(nested(MOST_DEPTH + 1), id="nested a little"),
        pytest.param(multiplied(7), id="multiplied"),
        pytest.param(mutual(30), id="mutual"),
        pytest.param({"anyOf": [{"type": "null"}] * (MOST_SCHEMAS + 1)}, id="alternatives"),
        pytest.param({"enum": list(range(MOST_VALUES + 1))}, id="values"),
        pytest.param({"const": "x" * (MOST_CHARACTERS + 1)}, id="a value"),
        pytest.param({"properties": {str(index): {"type": "null"} for index in range(MOST_VALUES + 1)}}, id="names"),
        pytest.param({"properties": {str(index): {"type": "string"} for index in range(MOST_VALUES)}}, id="properties"),
        pytest.param({"oneOf": [{"const": index} for index in range(1000)]}, id="comparisons"),
        pytest.param({"properties": {"a": {"x" * 4_000_000: 1}}}, id="a keyword"),
        pytest.param({"pattern": "(" * 4_000_000}, id="a pattern"),
    ],
)
def test_a_schema_that_is_too_large_is_refused_at_once(schema):
    started = time.process_time()
    with pytest.raises(InvalidParameterError) as caught:
        schema_pattern(schema, "schema")
    assert time.process_time() - started < 1
    assert len(str(caught.value)) < 1000


def test_a_schema_may_be_as_deep_as_the_limit_says():
    assert matches(nested(MOST_DEPTH), '{"a":' * MOST_DEPTH + "null" + "}" * MOST_DEPTH)
