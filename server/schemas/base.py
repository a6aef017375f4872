"""The rules of every request body: strict types, no unknown names, null counts as absent."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from server.http.api_error import nearest, shortened

T = TypeVar("T")

MAX_ITEMS = 2**17
"""The most items of a list, above the number of positions of any LLaDA."""
MAX_ENTRIES = 4096
"""The most entries that are checked one by one: constraints, biases, segments."""


def _whole(value: Any) -> Any:
    """Accept 2.0 as the count 2, since JSON does not distinguish integers from floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


TokenId = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
# Non-negative numbers as keys of a JSON object: token ids and positions.
NumberKey = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]


def _encodable(text: str) -> str:
    """Refuse half a surrogate pair: JSON can hold one, but no tokenizer can read it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"be Unicode text; it has a lone surrogate at character {error.start}") from None
    return text


def _filled(text: str) -> str:
    if not text:
        raise ValueError("not be empty")
    return text


Text = Annotated[str, AfterValidator(_encodable)]
NonEmptyText = Annotated[Text, AfterValidator(_filled), WithJsonSchema({"type": "string", "minLength": 1})]

# The branches of unions by their tags: how to recognise the JSON of each, and how an error names it.
_BRANCHES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "<text>": (lambda value: isinstance(value, str), "a string"),
    "<gap>": (lambda value: isinstance(value, dict), '{"mask": n}'),
    "<texts>": (lambda value: _is_list_of(value, str), "a list of strings"),
    "<lists of ids>": (lambda value: _is_list_of(value, list), "a list of lists of token ids"),
    "<ids>": (lambda value: isinstance(value, list), "a list of token ids"),
    "<parts>": (lambda value: isinstance(value, list), "a list of content parts"),
    "<function>": (lambda value: isinstance(value, dict), "a function"),
    "<messages>": (lambda value: isinstance(value, list), "a list of messages"),
    "<boolean>": (lambda value: isinstance(value, bool), "a boolean"),
    "<object>": (lambda value: isinstance(value, dict), "an object"),
    "<list>": (lambda value: isinstance(value, list), "a list"),
}


def _is_list_of(value: Any, type_: type) -> bool:
    return isinstance(value, list) and (not value or isinstance(value[0], type_))


def kind(*tags: str) -> Discriminator:
    """Choose the branch of a union by its JSON type before checking it, so that there is a single error, about the
    branch that was meant. If several branches fit, the first is taken.
    """

    def tag_of(value: Any) -> str | None:
        return next((tag for tag in tags if _BRANCHES[tag][0](value)), None)

    *others, last = (_BRANCHES[tag][1] for tag in tags)
    rule = f"be {', '.join(others)} or {last}"
    return Discriminator(tag_of, custom_error_type="kind", custom_error_message=rule)


def typed(*types: str, default: str | None = None) -> Discriminator:
    """Choose the branch of a union of objects by their `type`, which is also the branch's tag between `<` and `>`.

    Args:
        default: the type of an object without one.
    """

    def tag_of(value: Any) -> str | None:
        type_ = (value.get("type") or default) if isinstance(value, dict) else None
        return f"<{type_}>" if type_ in types else None

    *others, last = types
    rule = f"be an object whose type is {', '.join(others)} or {last}"
    return Discriminator(tag_of, custom_error_type="type", custom_error_message=rule)


# Checking stops at the first error: in a list of megabytes every item could add an error object.
List = Annotated[list[T], Field(fail_fast=True, max_length=MAX_ITEMS)]
NonEmptyList = Annotated[list[T], Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS)]
TokenIds = NonEmptyList[TokenId]
TextOrIds = Annotated[
    Annotated[NonEmptyText, Tag("<text>")] | Annotated[TokenIds, Tag("<ids>")], kind("<text>", "<ids>")
]


def few(value: Any) -> Any:
    """Refuse an object with too many entries before any of them is checked."""
    if isinstance(value, dict) and len(value) > MAX_ENTRIES:
        raise ValueError(f"have at most {MAX_ENTRIES} entries")
    return value


NumberDict = Annotated[
    dict[NumberKey, T], BeforeValidator(few), Field(json_schema_extra={"additionalProperties": False})
]


class Body(BaseModel):
    """Strict types, no unknown names; null counts as absent.

    Attributes:
        neutral: unsupported fields and, for each, the values that request nothing; every other value is refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral_values(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {}
        fields = _names_of(cls)
        for name, value in data.items():
            if value is None and (name in fields or name in cls.neutral):
                continue
            if name in cls.neutral and name not in fields:
                if not any(_is_same(value, neutral) for neutral in cls.neutral[name]):
                    raise PydanticCustomError(
                        "unsupported_value",
                        "",
                        {"name": name, "value": shortened(value), "neutral": cls.neutral[name]},
                    )
                continue
            kept[name] = _whole(value)
            if name not in fields:
                if question := nearest(name, fields):
                    # pydantic cannot take half a surrogate pair, which JSON can hold.
                    shown = name.encode(errors="backslashreplace").decode()
                    raise PydanticCustomError("misspelt_field", "", {"name": shown, "nearest": question})
                break  # a single unknown name is enough for the error
        return kept

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Document what the validator above accepts: null for absent, unsupported fields at their neutral values."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        properties = schema.setdefault("properties", {})
        for name, property_ in properties.items():
            if name not in schema.get("required", ()):
                properties[name] = _or_null(property_)
        for name, values in cls.neutral.items():
            if name not in properties:
                properties[name] = {
                    "enum": [*values, None],
                    "description": "not supported: accepted only at values without effect",
                }
        return reference


@cache
def _names_of(body: type[Body]) -> frozenset[str]:
    """The names of a body's fields as clients write them."""
    return frozenset(field.alias or name for name, field in body.model_fields.items())


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a property that may also be null; title, description and default stay outside the branches."""
    branches = schema.get("anyOf", ())
    if {"type": "null"} in branches:
        return schema
    annotations: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    kind = {key: value for key, value in schema.items() if key not in annotations}
    return {**annotations, "anyOf": [*(branches or [kind]), {"type": "null"}]}


def _is_same(value: object, neutral: object) -> bool:
    """Equal, except that False is not 0 and True is not 1."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral
