"""Makes Typer commands from the options classes: an option is defined once, in `training.options.fields`."""

import types
from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.core import TyperCommand

from training.options.file import command_options
from training.options.foreign import hint
from training.options.sections import SECTION_OF_COMMAND, SECTIONS

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with a section for this command.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show a batch, the schedule and the memory needed; write nothing.")
]


class Command(TyperCommand):
    """A command that says what an unknown option of its is called here."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            parsed: list[str] = super().parse_args(ctx, args)
        except Exception as error:  # typer does not export the class that has the option's name
            meant = hint(getattr(error, "option_name", ""), [str(p.name) for p in self.params], prefix="--")
            if meant:
                error.message = f"{getattr(error, 'message', error)}; {meant}"  # type: ignore[attr-defined]
                error.possibilities = None  # type: ignore[attr-defined]
            raise
        return parsed


def command_for(name: str, *, can_dry_run: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn `run(options[, dry_run=…])` into a function whose parameters are the command's options."""

    def decorate(run: Callable[..., None]) -> Callable[..., None]:
        def command(config: Path | None = None, **values: Any) -> None:
            extra = {"dry_run": values.pop("dry_run")} if can_dry_run else {}
            command_line = {key: value for key, value in values.items() if value not in (None, [])}
            run(command_options(name, config, command_line), **extra)

        parameters = [Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=ConfigFile)]
        parameters += [
            _parameter(field, info) for field, info in SECTIONS[SECTION_OF_COMMAND[name]].model_fields.items()
        ]
        if can_dry_run:
            parameters.append(Parameter("dry_run", Parameter.KEYWORD_ONLY, default=False, annotation=DryRun))
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__doc__ = run.__doc__
        command.__name__ = run.__name__
        return command

    return decorate


def _parameter(field: str, info: FieldInfo) -> Parameter:
    """A parameter that may be omitted: its value then comes from the config file or the class's default."""
    kind = _without_none(info.annotation)
    is_list = get_origin(kind) is list
    default = info.get_default(call_default_factory=False)
    shown = "required" if default is PydanticUndefined else None if default in (None, []) else str(default)
    name = (info.alias or field).replace("_", "-")
    declaration = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
    if isinstance(default, list):
        shown = " ".join(default) or None
    help_text = f"{info.description}{f' [{shown}]' if shown else ''}"
    option = typer.Option(declaration, help=help_text, show_default=False)
    kind = kind if is_list else kind | None
    annotation: Any = Annotated[kind, option]
    return Parameter(info.alias or field, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        (kind,) = (argument for argument in get_args(annotation) if argument is not type(None))
        return kind
    return annotation
