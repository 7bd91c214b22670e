"""Options of a command that are the fields of a dataclass, so that each is declared once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_type_hints

import typer


def with_options(options_class: type[Any], names: Sequence[str] | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that gives a command an option for each field of a dataclass.

    The command takes them as `**given`, by the fields' names; what was not given has the field's default. A field's
    metadata has its `help`.

    Args:
        options_class: the dataclass.
        names: the fields to take; None is all that a command line can hold: texts, numbers and flags.
    """
    hints = get_type_hints(options_class)
    simple = (str, int, float, bool, str | None, int | None, float | None)
    fields = [
        field
        for field in dataclasses.fields(options_class)
        if (field.name in names if names is not None else hints[field.name] in simple)
    ]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        made = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[hints[field.name], _option(field, hints[field.name])],
            )
            for field in fields
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        command.__signature__ = signature.replace(parameters=[*own, *made])  # type: ignore[attr-defined]
        return command

    return decorate


def _option(field: Any, kind: Any) -> Any:
    name = field.name.replace("_", "-")
    words = field.metadata["help"]
    words = words[0].upper() + words[1:] + "."
    if kind is bool:
        # What is off by default has one name, what is on a second that switches it off.
        return typer.Option(f"--{name}/--no-{name}" if field.default else f"--{name}", help=words)
    return typer.Option(f"--{name}", help=words)
