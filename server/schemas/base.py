"""What every request body follows: strict types, no unknown names, null means absent."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from server.errors import bad_request, shortened

T = TypeVar("T")

TokenId = Annotated[int, Field(ge=0)]
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
NonEmptyList = Annotated[list[T], Field(min_length=1)]
TokenIds = NonEmptyList[TokenId]


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
                    raise _unsupported(name, value, cls.neutral[name])
                continue
            kept[name] = _with_whole_numbers(value)
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


def _with_whole_numbers(value: Any) -> Any:
    """JSON knows numbers alone: 2.0 is as good a count as 2."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_whole_numbers(item) for item in value]
        case dict():
            return {name: _with_whole_numbers(item) for name, item in value.items()}
    return value


def _is_same(value: object, neutral: object) -> bool:
    """Equal, and not merely as False equals 0."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _unsupported(name: str, value: object, neutral: Sequence[object]) -> Exception:
    allowed = ", ".join(repr(one) for one in neutral)
    rule = f"{allowed} or absent" if allowed else "absent"
    return bad_request(
        f"{name} is {shortened(value)}; it must be {rule}: this server does not support it", name, "unsupported_value"
    )
