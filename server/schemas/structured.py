"""Fields that say which texts an answer may be: `response_format`, `structured_outputs`, and their common meaning."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from llada_core.sampling.constraints.json_schema import schema_pattern
from llada_core.sampling.constraints.json_text import either, object_pattern
from server.http.api_error import bad_request
from server.schemas.base import Body, NonEmptyText, Text

MOST_CHOICES = 1000


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The texts that an answer may be.

    Attributes:
        field: where the body says so.
        pattern: makes the regular expression of these texts; it may take a while, and refuse what the field holds.
    """

    field: str
    pattern: Callable[[], str]


class StructuredOutputs(Body):
    """vLLM's `structured_outputs`: exactly one of the three."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "disable_additional_properties": (False,),
        "disable_any_whitespace": (False,),
        "disable_fallback": (False,),
        "grammar": (),
        "json_object": (False,),
        "structural_tag": (),
        "whitespace_pattern": (),
    }

    regex: NonEmptyText | None = Field(None, description="the answer matches this regular expression as a whole")
    json_: dict[str, Any] | None = Field(
        None, alias="json", description="the answer is JSON that satisfies this schema"
    )
    choice: Annotated[list[NonEmptyText], Field(fail_fast=True, min_length=1, max_length=MOST_CHOICES)] | None = Field(
        None, description="the answer is one of these strings"
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructuredOutputs":
        values = {"regex": self.regex, "json": self.json_, "choice": self.choice}
        present = [name for name, value in values.items() if value is not None]
        if len(present) != 1:
            names = " and ".join(present) if present else "none of them"
            field = f"structured_outputs.{present[1]}" if present else "structured_outputs"
            raise bad_request(f"structured_outputs: {names} given; it must be one of regex, json and choice", field)
        return self

    @property
    def form(self) -> AnswerForm:
        if self.regex is not None:
            regex = self.regex
            return AnswerForm("structured_outputs.regex", lambda: regex)
        if self.choice is not None:
            choices = self.choice
            return AnswerForm("structured_outputs.choice", lambda: either(map(re.escape, choices)))
        return _schema_form(self.json_, "structured_outputs.json")


class NamedSchema(Body):
    """OpenAI's `json_schema`."""

    name: Text = Field(description="without effect")
    description: Text | None = Field(None, description="without effect")
    schema_: dict[str, Any] = Field(alias="schema", description="the JSON schema of the answer")
    strict: bool = Field(False, description="without effect: the answer always satisfies the schema")


FormatType = Literal["text", "json_object", "json_schema"]


class ResponseFormat(Body):
    """OpenAI's `response_format`."""

    type: FormatType
    json_schema: NamedSchema | None = Field(None, description="with the type json_schema")

    @model_validator(mode="after")
    def _a_schema_belongs_to_its_type(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            rule = "be there" if self.json_schema is None else "be absent"
            raise bad_request(
                f"response_format.json_schema must {rule} with the type {self.type}", "response_format.json_schema"
            )
        return self

    @property
    def form(self) -> AnswerForm | None:
        schema = None if self.json_schema is None else self.json_schema.schema_
        return format_form(self.type, schema, "response_format", "response_format.json_schema.schema")


def format_form(type_: FormatType, schema: dict[str, Any] | None, field: str, schema_field: str) -> AnswerForm | None:
    """The form of an answer by OpenAI's type of a format; None for plain text."""
    match type_:
        case "text":
            return None
        case "json_object":
            return AnswerForm(field, object_pattern)
        case "json_schema":
            return _schema_form(schema, schema_field)


def _schema_form(schema: Any, field: str) -> AnswerForm:
    return AnswerForm(field, partial(schema_pattern, schema, field))


class StructuredFields(Body):
    """`structured_outputs` on every endpoint that generates."""

    structured_outputs: StructuredOutputs | None = Field(
        None, description="{regex}, {json} or {choice}: the answer matches it"
    )

    @property
    def form(self) -> AnswerForm | None:
        """What the answer may be; None: any text."""
        return self.structured_outputs.form if self.structured_outputs else None


class FormattedFields(StructuredFields):
    """Both names: at most one may ask for more than text."""

    response_format: ResponseFormat | None = Field(
        None, description="{type: json_object} or {type: json_schema, json_schema: {name, schema}}"
    )

    @model_validator(mode="after")
    def _at_most_one_form(self) -> "FormattedFields":
        if self.structured_outputs is not None and self._format_form is not None:
            raise bad_request(
                "structured_outputs is given beside response_format; at most one of them must say what the answer is",
                "structured_outputs",
            )
        return self

    @property
    def form(self) -> AnswerForm | None:
        return super().form or self._format_form

    @property
    def _format_form(self) -> AnswerForm | None:
        return self.response_format.form if self.response_format else None
