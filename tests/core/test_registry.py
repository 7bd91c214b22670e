"""The registry and the lazy names at the root that come from it."""

import subprocess
import sys

import pytest

import isobert
from isobert.core.registry import FAMILIES, family_of, model_class, public_names, tokenizer_class
from isobert.errors import MissingDependencyError, UnknownNameError


@pytest.mark.parametrize("name", [name for name, _ in public_names()])
def test_every_public_name_resolves_to_what_it_says(name):
    assert getattr(isobert, name).__name__ == name
    assert name in dir(isobert)


def test_families_heads_and_frameworks_find_their_classes():
    for family in FAMILIES.values():
        for fast in (False, True):
            assert tokenizer_class(family.model_type, fast=fast).__name__.startswith(family.prefix)
        for head in family.heads:
            pt, tf = (model_class(family.model_type, head, framework) for framework in ("pt", "tf"))
            assert tf.__name__ == f"TF{pt.__name__}"


def test_unknown_families_and_heads_are_answered_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="'mobilebert'"):
        family_of("bert")
    with pytest.raises(UnknownNameError, match="ForMaskedLM"):
        model_class("mobilebert", "ForCausalLM", "pt")


@pytest.mark.parametrize(
    ("use", "name", "module", "extra"),
    [
        ("isobert.MobileBertModel", "MobileBertModel", "torch", "pt"),
        ("isobert.TFMobileBertModel", "TFMobileBertModel", "keras", "tf"),
        ("isobert.AutoModel.from_config(isobert.MobileBertConfig())", "MobileBertModel", "torch", "pt"),
    ],
)
def test_a_missing_framework_names_the_extra_to_install(use, name, module, extra):
    # None in sys.modules makes an import fail as if the package were not installed.
    code = f"import sys; sys.modules[{module!r}] = None\nimport isobert\n{use}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"{MissingDependencyError.__name__}: {name} needs {module}" in found.stderr
    assert f"isobert[{extra}]" in found.stderr
