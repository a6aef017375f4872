"""Validates options; an error names the place, the key, the value and the rule."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from training.errors import TrainingError
from training.options.fields import Options
from training.options.foreign import hint
from training.options.sections import option_names

OptionsT = TypeVar("OptionsT", bound=Options)


def build_options(kind: type[OptionsT], values: Mapping[str, Any], *, where: str) -> OptionsT:
    """Validate the values and build the options.

    Raises:
        TrainingError: an unknown key, or a value that breaks its rule.
    """
    check_options(kind, values, where=where)
    return kind.model_validate(dict(values))


def check_options(
    kind: type[Options], values: Mapping[str, Any], *, where: str, may_be_incomplete: bool = False
) -> None:
    """Validate the values.

    Args:
        may_be_incomplete: missing values are not errors.

    Raises:
        TrainingError: an unknown key, or a value that breaks its rule.
    """
    problems = _problems(kind, values)
    if may_be_incomplete:
        problems = [problem for problem in problems if problem["type"] != "missing"]
    if problems:
        raise TrainingError("; ".join(_describe(problem, where, kind) for problem in problems))


def _problems(kind: type[Options], values: Mapping[str, Any]) -> Sequence[Any]:
    try:
        kind.model_validate(dict(values))
    except ValidationError as error:
        return error.errors()
    return []


def _describe(problem: Any, where: str, kind: type[Options]) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    match problem["type"]:
        case "extra_forbidden":
            known = option_names(kind)
            meant = hint(name, known)
            return f"{where}: {name}: unknown option; {meant or 'known are ' + ', '.join(sorted(known))}"
        case "missing":
            return f"{where}: {name}: missing; it must be given"
        case "value_error":
            return f"{where}: {name}: {problem['ctx']['error']}" if name else f"{where}: {problem['ctx']['error']}"
    return f"{where}: {name} is {problem['input']!r}: {problem['msg']}"
