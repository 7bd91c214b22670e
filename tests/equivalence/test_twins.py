"""`pt/` and `tf/` are twins: the same files, classes, methods and arguments, in the same order.

Read from the source text, so no framework is needed.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a framework asks for under a name of its own, and the other has no use for.
ONLY_PT = {"extra_repr"}
ONLY_TF = {"build", "get_config", "from_config", "compute_output_shape", "compute_output_spec"}


def files(framework: str) -> list[str]:
    return sorted(path.name for path in (ROOT / framework).glob("*.py"))


TWIN_FILES = [name for name in files("pt") if (ROOT / "tf" / name).exists()]


def public(framework: str, file: str, kind: type[ast.stmt]) -> dict[str, ast.stmt]:
    """Return a file's public classes or functions by name, without the `TF` of Keras models."""
    tree = ast.parse((ROOT / framework / file).read_text(encoding="utf-8"))
    found = {}
    for node in tree.body:
        if isinstance(node, kind) and not node.name.startswith("_"):
            name = node.name.removeprefix("TF") if framework == "tf" else node.name
            found[name] = node
    return found


def methods(framework: str, node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    """Return a class's public methods and its constructor by name, under PyTorch's names."""
    own = ONLY_PT if framework == "pt" else ONLY_TF
    found = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name not in own:
            name = "forward" if framework == "tf" and item.name == "call" else item.name
            if name == "__init__" or not name.startswith("_"):
                found[name] = item
    return found


def arguments(function: ast.FunctionDef) -> list[tuple[str, str, str | None]]:
    """Return each argument's kind, name and default, without `training`, which Keras alone passes along."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + [ast.unparse(value) for value in spec.defaults]
    found = [("positional", a.arg, d) for a, d in zip(positional, defaults, strict=True)]
    keyword_defaults = [None if value is None else ast.unparse(value) for value in spec.kw_defaults]
    found += [("keyword", a.arg, d) for a, d in zip(spec.kwonlyargs, keyword_defaults, strict=True)]
    return [entry for entry in found if entry[1] != "training"]


def test_both_frameworks_have_the_same_files() -> None:
    assert files("pt") == files("tf")


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_files_hold_the_same_public_classes_in_the_same_order(file: str) -> None:
    assert list(public("pt", file, ast.ClassDef)) == list(public("tf", file, ast.ClassDef))


@pytest.mark.parametrize("file", TWIN_FILES)
def test_only_models_have_tf_in_front_of_their_names(file: str) -> None:
    tree = ast.parse((ROOT / "tf" / file).read_text(encoding="utf-8"))
    models = set(public("pt", "auto.py", ast.ClassDef)) | set(public("pt", "modeling.py", ast.ClassDef))
    families = (ROOT / "core" / file).exists()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("TF"):
            assert families or node.name.removeprefix("TF") in models, f"{node.name} is no model"


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_files_hold_the_same_public_functions_in_the_same_order(file: str) -> None:
    assert list(public("pt", file, ast.FunctionDef)) == list(public("tf", file, ast.FunctionDef))


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_functions_take_the_same_arguments(file: str) -> None:
    pt, tf = public("pt", file, ast.FunctionDef), public("tf", file, ast.FunctionDef)
    assert {name: arguments(pt[name]) for name in pt if name in tf} == {
        name: arguments(tf[name]) for name in pt if name in tf
    }


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_classes_have_the_same_public_methods_in_the_same_order(file: str) -> None:
    pt, tf = public("pt", file, ast.ClassDef), public("tf", file, ast.ClassDef)
    mine = {name: [m for m in methods("pt", pt[name]) if m != "__init__"] for name in pt if name in tf}
    assert mine == {name: [m for m in methods("tf", tf[name]) if m != "__init__"] for name in mine}


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_methods_take_the_same_arguments(file: str) -> None:
    pt, tf = public("pt", file, ast.ClassDef), public("tf", file, ast.ClassDef)
    for name in pt:
        if name not in tf:
            continue
        mine, other = methods("pt", pt[name]), methods("tf", tf[name])
        for method in mine:
            if method in other and method != "__init__":
                assert arguments(mine[method]) == arguments(other[method]), f"{name}.{method}"
