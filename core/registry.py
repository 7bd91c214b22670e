"""The table of families: which classes exist, and where. Auto classes and the root's names are read from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from ..errors import MissingDependencyError, UnknownNameError


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        model_type: the value of `model_type` in its `config.json`, and its files' name in `core/`, `pt/` and `tf/`.
        prefix: what its classes' names begin with.
        heads: its model classes' names after the prefix; `Model` is the bare encoder. A family that is so far here with
            its tokenizers alone has none, and no config.
    """

    model_type: str
    prefix: str
    heads: tuple[str, ...] = ()

    @property
    def config_name(self) -> str | None:
        """The config class's name."""
        return f"{self.prefix}Config" if self.heads else None

    def model_name(self, head: str, framework: str) -> str:
        """Return the class name of a head ("ForMaskedLM") in a framework ("pt" or "tf")."""
        return f"{'TF' if framework == 'tf' else ''}{self.prefix}{head}"


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "mobilebert",
            "MobileBert",
            heads=(
                "Model",
                "ForPreTraining",
                "ForMaskedLM",
                "ForNextSentencePrediction",
                "ForSequenceClassification",
                "ForMultipleChoice",
                "ForTokenClassification",
                "ForQuestionAnswering",
            ),
        ),
        Family(
            "convbert",
            "ConvBert",
            heads=(
                "Model",
                "ForMaskedLM",
                "ForSequenceClassification",
                "ForMultipleChoice",
                "ForTokenClassification",
                "ForQuestionAnswering",
            ),
        ),
        Family(
            "squeezebert",
            "SqueezeBert",
            heads=(
                "Model",
                "ForMaskedLM",
                "ForSequenceClassification",
                "ForMultipleChoice",
                "ForTokenClassification",
                "ForQuestionAnswering",
            ),
        ),
        Family(
            "rembert",
            "RemBert",
            heads=(
                "Model",
                "ForCausalLM",
                "ForMaskedLM",
                "ForSequenceClassification",
                "ForMultipleChoice",
                "ForTokenClassification",
                "ForQuestionAnswering",
            ),
        ),
    )
}

FRAMEWORKS = ("pt", "tf")

# The extra that installs an optional dependency.
EXTRAS = {"torch": "pt", "tensorflow": "tf", "keras": "tf"}


def all_heads() -> tuple[str, ...]:
    """Return every head that some family has, in the order of their first mention."""
    return tuple(dict.fromkeys(head for family in FAMILIES.values() for head in family.heads))


def family_of(model_type: Any, where: str = "config.json") -> Family:
    """Return the family of a `model_type`.

    Raises:
        UnknownNameError: no family is called so.
    """
    try:
        return FAMILIES[model_type]
    except (KeyError, TypeError):
        raise UnknownNameError(
            f"{where}: model_type is {model_type!r}; isobert knows {', '.join(map(repr, FAMILIES))}."
        ) from None


def import_part(module: str, *, needed_by: str = "") -> ModuleType:
    """Import a module of this package, named from its root: `.pt.mobilebert`.

    Raises:
        MissingDependencyError: it needs a framework that is not installed; the message names the extra to install, and
            what it is needed by.
    """
    root = __name__.removesuffix(".core.registry")
    try:
        return import_module(module, root)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingDependencyError(
            f"{needed_by or root + module} needs {error.name}, which is not installed: pip install 'isobert[{extra}]'."
        ) from error


def model_class(model_type: str, head: str, framework: str) -> type[Any]:
    """Return the model class of a family, a head and a framework, importing the framework's module.

    Raises:
        UnknownNameError: no such family, or the family has no such head.
    """
    family = family_of(model_type)
    if head not in family.heads:
        raise UnknownNameError(
            f"{family.prefix} has no model {head!r}; it has {', '.join(family.heads) or 'tokenizers only'}."
        )
    name = family.model_name(head, framework)
    found: type[Any] = getattr(import_part(f".{framework}.{model_type}", needed_by=name), name)
    return found


def tokenizer_class(model_type: str, *, fast: bool) -> type[Any]:
    """Return the slow or fast tokenizer class of a family.

    Raises:
        UnknownNameError: no such family.
    """
    family = family_of(model_type)
    module = import_part(f".tokenization.{model_type}")
    found: type[Any] = getattr(module, f"{family.prefix}Tokenizer{'Fast' if fast else ''}")
    return found


def public_names() -> Iterator[tuple[str, str]]:
    """Yield every public name of the root package with the module (relative to the root) that holds it."""
    yield "AutoConfig", ".core.auto"
    yield "AutoTokenizer", ".tokenization.auto"
    for family in FAMILIES.values():
        if family.config_name:
            yield family.config_name, f".core.{family.model_type}"
        yield f"{family.prefix}Tokenizer", f".tokenization.{family.model_type}"
        yield f"{family.prefix}TokenizerFast", f".tokenization.{family.model_type}"
        for framework in FRAMEWORKS:
            for head in family.heads:
                yield family.model_name(head, framework), f".{framework}.{family.model_type}"
    yield "TFAdamW", ".tf.optimizers"
    yield "pipeline", ".core.inference"
    for head in all_heads():
        name = "AutoModel" if head == "Model" else f"AutoModel{head}"
        yield name, ".pt.auto"
        yield f"TF{name}", ".tf.auto"
