"""Rules that give a tensor of a foreign form its name on the Hub, and the reverse."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .layouts import Layout

# What a field of a template stands for, by its first letter: {i}, {j} a number, {name} a part without separators,
# {path} any parts.
_FIELDS = {"i": r"\d+", "j": r"\d+", "n": r"[^./]+", "p": r".+"}


@dataclass(frozen=True)
class Rule:
    """One kind of tensor under its two names.

    Both names are templates with the same fields: `{i}` and `{j}` stand for numbers, `{name}` for a part without
    separators, `{path}` for any parts.

    Attributes:
        hub: the Hub's name, as in a model with a head.
        foreign: the other form's name.
        layout: how the other form's array lies relative to the Hub's.
    """

    hub: str
    foreign: str
    layout: Layout = "same"


@dataclass(frozen=True)
class ForeignNames:
    """The table of one family in one foreign form. Each rule is read in both directions; the first that fits counts.

    Attributes:
        rules: the tensors that have a name on the Hub.
        left_out: pairs (pattern, reason): tensors of the foreign form that have none, and why.
    """

    rules: tuple[Rule, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    def to_hub(self, name: str) -> tuple[str, Layout] | None:
        """Return the Hub's name of a foreign tensor and its layout; None if no rule fits."""
        found = ((_renamed(name, rule.foreign, rule.hub), rule.layout) for rule in self.rules)
        return next(((hub, layout) for hub, layout in found if hub is not None), None)

    def to_foreign(self, name: str) -> tuple[str, Layout] | None:
        """Return the foreign name of a tensor of the Hub and its layout; None if no rule fits."""
        found = ((_renamed(name, rule.hub, rule.foreign), rule.layout) for rule in self.rules)
        return next(((foreign, layout) for foreign, layout in found if foreign is not None), None)

    def reason_to_leave_out(self, name: str) -> str | None:
        """Say why a foreign tensor has no place on the Hub; None if it should have one."""
        return next((reason for pattern, reason in self.left_out if re.search(pattern, name)), None)


_PATTERNS: dict[str, re.Pattern[str]] = {}


def _renamed(name: str, template: str, other: str) -> str | None:
    """Return the name in the other template if it fits this one."""
    if template not in _PATTERNS:
        parts = re.split(r"\{(\w+)\}", template)
        pattern = "".join(
            f"(?P<{part}>{_FIELDS[part[0]]})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
        )
        _PATTERNS[template] = re.compile(pattern)
    found = _PATTERNS[template].fullmatch(name)
    return other.format(**found.groupdict()) if found else None
