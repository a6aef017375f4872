"""What every request body follows: strict types, no unknown names, null means absent."""

from collections.abc import Callable, Mapping
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

T = TypeVar("T")

MAX_ITEMS = 2**17
"""More than the positions of any LLaDA."""
MAX_ENTRIES = 4096
"""Of what is looked at one by one: constraints, biases, segments."""


def _whole(value: Any) -> Any:
    """JSON knows numbers alone: 2.0 is as good a count as 2."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


TokenId = Annotated[int, Field(ge=0), BeforeValidator(_whole)]
# JSON's names of non-negative numbers: of tokens, and of positions.
NumberKey = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]


def _encodable(text: str) -> str:
    """JSON can write half a surrogate pair, which no tokenizer can read."""
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

# The branches of unions, by their tags: what JSON of one begins like, and how an error names it.
_BRANCHES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "<text>": (lambda value: isinstance(value, str), "a string"),
    "<gap>": (lambda value: isinstance(value, dict), '{"mask": n}'),
    "<texts>": (lambda value: _is_list_of(value, str), "a list of strings"),
    "<lists of ids>": (lambda value: _is_list_of(value, list), "a list of lists of token ids"),
    "<ids>": (lambda value: isinstance(value, list), "a list of token ids"),
    "<parts>": (lambda value: isinstance(value, list), "a list of content parts"),
    "<messages>": (lambda value: isinstance(value, list), "a list of messages"),
}


def _is_list_of(value: Any, type_: type) -> bool:
    return isinstance(value, list) and (not value or isinstance(value[0], type_))


def kind(*tags: str) -> Discriminator:
    """Tells the branches of a union apart by the JSON type, before they are checked: an error then speaks of the one
    that was meant, and there is one of it. Of several that fit the first is taken.
    """

    def of(value: Any) -> str | None:
        return next((tag for tag in tags if _BRANCHES[tag][0](value)), None)

    *others, last = (_BRANCHES[tag][1] for tag in tags)
    rule = f"be {', '.join(others)} or {last}"
    return Discriminator(of, custom_error_type="kind", custom_error_message=rule)


# A list ends at its first error: of a list of megabytes every error would be an object.
List = Annotated[list[T], Field(fail_fast=True, max_length=MAX_ITEMS)]
NonEmptyList = Annotated[list[T], Field(fail_fast=True, min_length=1, max_length=MAX_ITEMS)]
TokenIds = NonEmptyList[TokenId]
TextOrIds = Annotated[
    Annotated[NonEmptyText, Tag("<text>")] | Annotated[TokenIds, Tag("<ids>")], kind("<text>", "<ids>")
]


def few(value: Any) -> Any:
    """Refuse an object of megabytes before its entries are looked at."""
    if isinstance(value, dict) and len(value) > MAX_ENTRIES:
        raise ValueError(f"have at most {MAX_ENTRIES} entries")
    return value


NumberDict = Annotated[
    dict[NumberKey, T], BeforeValidator(few), Field(json_schema_extra={"additionalProperties": False})
]


class Body(BaseModel):
    """Strict types, no unknown names; null means absent.

    Attributes:
        neutral: fields without effect here, and the values of each that ask for none; every other value is refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {}
        for name, value in data.items():
            if value is None and (name in cls.model_fields or name in cls.neutral):
                continue
            if name in cls.neutral and name not in cls.model_fields:
                if not any(_is_same(value, neutral) for neutral in cls.neutral[name]):
                    raise PydanticCustomError(
                        "unsupported_value", "", {"name": name, "value": value, "neutral": cls.neutral[name]}
                    )
                continue
            kept[name] = _whole(value)
            if name not in cls.model_fields:
                break  # one unknown name is enough for an error
        return kept

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema says what the validator above accepts: null for absent, neutral fields at neutral values."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        properties = schema.setdefault("properties", {})
        for name, property_ in properties.items():
            if name not in schema.get("required", ()):
                properties[name] = _or_null(property_)
        for name, values in cls.neutral.items():
            if name not in properties:
                properties[name] = {"enum": [*values, None], "description": "only as if it were absent"}
        return reference


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A property's schema that also takes null; what describes the property stays outside."""
    branches = schema.get("anyOf", ())
    if {"type": "null"} in branches:
        return schema
    about: dict[str, Any] = {key: schema[key] for key in ("title", "description", "default") if key in schema}
    kind = {key: value for key, value in schema.items() if key not in about}
    return {**about, "anyOf": [*(branches or [kind]), {"type": "null"}]}


def _is_same(value: object, neutral: object) -> bool:
    """Equal, and not merely as False equals 0."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral
