"""Rules for config fields: what a value may be, checked and said in one place.

A config class declares each field with `setting(default, rule)`; the rule gives both the check and the words of the
error. Adding a kind of field means adding a rule here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Rule:
    """What a field may hold: a test, and the words that complete the sentence "it must be ..."."""

    accepts: Callable[[Any], bool]
    words: str

    def check(self, owner: str, name: str, value: Any) -> None:
        """Raise `ConfigError` unless `value` is legal for the field `name` of the class `owner`."""
        if not self.accepts(value):
            raise ConfigError(f"{owner}.{name} is {value!r}; it must be {self.words}.")


def setting(default: Any, rule: Rule) -> Any:
    """Declare a dataclass field with a default and a rule."""
    return dataclasses.field(default=default, metadata={"rule": rule})


def integer(at_least: int) -> Rule:
    """An integer from `at_least` upwards; a bool does not count as one."""
    return Rule(lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= at_least, f"an integer >= {at_least}")


def odd() -> Rule:
    """An odd integer above 0."""
    return Rule(lambda v: integer(1).accepts(v) and v % 2 == 1, "an odd integer >= 1")


def probability() -> Rule:
    """A number from 0 up to, but not including, 1."""
    return Rule(lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 up to, but not including, 1")


def positive_number() -> Rule:
    """A finite number above 0."""
    return Rule(lambda v: _is_number(v) and v > 0, "a number above 0")


def number() -> Rule:
    """Any finite number."""
    return Rule(_is_number, "a finite number")


def flag() -> Rule:
    """True or False."""
    return Rule(lambda v: isinstance(v, bool), "true or false")


def one_of(*choices: str) -> Rule:
    """One of the given strings."""
    return Rule(lambda v: isinstance(v, str) and v in choices, f"one of {', '.join(map(repr, choices))}")


def optional(rule: Rule) -> Rule:
    """None, or what another rule accepts."""
    return Rule(lambda v: v is None or rule.accepts(v), f"None or {rule.words}")


def anything() -> Rule:
    """No rule of its own; the config checks the field together with others."""
    return Rule(lambda v: True, "anything")


def strings() -> Rule:
    """A list of strings."""
    return Rule(lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v), "a list of strings")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
