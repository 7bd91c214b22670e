"""`pt/` and `tf/` are twins: the same files, classes, methods and arguments, in the same order.

Read from the source text, so no framework is needed.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# What one framework asks for and the other has no use for, everywhere ...
ONLY_PT = {"extra_repr", "reset_parameters"}
ONLY_TF = {"build", "get_config", "compute_output_shape", "compute_output_spec"}
# ... and in one class, or (None) among a file's own classes and functions.
ONLY_IN: dict[tuple[str, str | None], set[str]] = {
    # Looking at values: torch asks where a tensor is, Keras whether it is one of a graph. Keras 3 has no
    # `is_floating_point`, and wraps what is raised inside a call.
    ("inputs.py", None): {"values_are_cheap", "visible_values", "is_floating_point", "input_error"},
    # Keras layers are built without data by `Block`; their variables cannot be exchanged by assigning an attribute.
    # A Keras head whose table is not tied has a layer for it.
    # A torch parameter is drawn in place; a Keras variable takes over what is drawn.
    # Tools exchange a torch module for one that does more, such as an adapter; a Keras layer stays what it is.
    ("layers.py", None): {
        "Block",
        "Table",
        "replace_weight",
        "truncated_normal",
        "adopted",
        "is_plain",
    },
    # torch's own embedding leaves the padding row untrained; Keras's does not, so it has a `call` of its own.
    ("layers.py", "Embedding"): {"forward"},
    # Keras's own dense layer multiplies as it is, and its grouped ones hold their weight alike.
    ("layers.py", "Dense"): {"forward"},
    ("layers.py", "GroupedConvolution"): {"forward"},
    # Labels among the inputs are moved to the scores that are for them, which Keras's metrics see; and a Keras model
    # may be a part of another.
    ("heads.py", "ForCausalLM"): {"compute_metrics", "symbolic_call"},
    # Dropout is switched off in each torch module, and in Keras by what a call is given. Keras knows names of dtypes.
    ("modeling.py", None): {"evaluation", "floating_dtype"},
    # A torch module has no `dtype` and no `device` of its own; a Keras model takes part in `fit` and `export`. To train
    # an optimized model is refused where that begins.
    ("modeling.py", "PreTrainedModel"): {
        "device",
        "dtype",
        "train",
        "fit",
        "save",
        "from_config",
        "stateless_call",
        "compute_loss",
        "compute_metrics",
        "predict_step",
        "export",
    },
}
# Files of one framework: PyTorch's runs are carried by Accelerate, and Keras's by `fit`, `tf.data` and `tf.distribute`;
# and Keras gets a twin of PyTorch's optimizer. How a CPU multiplies and draws dropout is asked in PyTorch
# alone, and its oneDNN has products of bytes.
ONLY_FILES = {
    "pt": {"acceleration.py", "dropout.py", "products.py", "quantization.py", "resuming.py"},
    "tf": {"callbacks.py", "data.py", "distribution.py", "optimizers.py", "step.py"},
}
# Arguments that the frameworks' idioms make different, where neither a model's user nor a family's file meets them.
OTHER_ARGUMENTS = {
    "AttentionMask.of",  # torch's fused attention takes scores to add, so it needs their dtype
    "attend",  # dropout is a probability in torch and a layer in Keras, whose random state it holds
    "Encoder.run_layer",  # Keras takes what is no tensor by name alone
    "KeyValueCache.empty",  # a torch tensor is made on a device
    "PreTrainedModel.gradient_checkpointing_enable",  # tools for PyTorch models pass how
}


def files(framework: str) -> list[str]:
    return sorted(path.name for path in (ROOT / framework).glob("*.py"))


TWIN_FILES = [name for name in files("pt") if (ROOT / "tf" / name).exists()]


def public(framework: str, file: str, kind: type[ast.ClassDef] | type[ast.FunctionDef]) -> dict[str, Any]:
    """Return a file's public classes or functions by name, without the `TF` of Keras models."""
    tree = ast.parse((ROOT / framework / file).read_text(encoding="utf-8"))
    own = ONLY_IN.get((file, None), set())
    found = {}
    for node in tree.body:
        if isinstance(node, kind) and not node.name.startswith("_") and node.name not in own:
            found[node.name.removeprefix("TF") if framework == "tf" else node.name] = node
    return found


def methods(framework: str, file: str, name: str, node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    """Return a class's public methods by name, under PyTorch's names."""
    own = (ONLY_PT if framework == "pt" else ONLY_TF) | ONLY_IN.get((file, name), set())
    found = {}
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            method = "forward" if framework == "tf" and item.name == "call" else item.name
            if method not in own and not method.startswith("_"):
                found[method] = item
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
    pt, tf = (set(files(framework)) - ONLY_FILES[framework] for framework in ("pt", "tf"))
    assert pt == tf


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_files_hold_the_same_public_classes_in_the_same_order(file: str) -> None:
    assert list(public("pt", file, ast.ClassDef)) == list(public("tf", file, ast.ClassDef))


@pytest.mark.parametrize("file", TWIN_FILES)
def test_only_models_have_tf_in_front_of_their_names(file: str) -> None:
    tree = ast.parse((ROOT / "tf" / file).read_text(encoding="utf-8"))
    models = set(public("pt", "auto.py", ast.ClassDef)) | set(public("pt", "modeling.py", ast.ClassDef))
    # A trainer is named like the models that it trains, since users import both by name.
    models.add("Trainer")
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
    for name in pt.keys() & tf.keys() - OTHER_ARGUMENTS:
        assert arguments(pt[name]) == arguments(tf[name]), name


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_classes_have_the_same_public_methods_in_the_same_order(file: str) -> None:
    pt, tf = public("pt", file, ast.ClassDef), public("tf", file, ast.ClassDef)
    for name in pt.keys() & tf.keys():
        assert list(methods("pt", file, name, pt[name])) == list(methods("tf", file, name, tf[name])), name


@pytest.mark.parametrize("file", TWIN_FILES)
def test_twin_methods_take_the_same_arguments(file: str) -> None:
    pt, tf = public("pt", file, ast.ClassDef), public("tf", file, ast.ClassDef)
    for name in pt.keys() & tf.keys():
        mine, other = methods("pt", file, name, pt[name]), methods("tf", file, name, tf[name])
        for method in mine.keys() & other.keys():
            if f"{name}.{method}" not in OTHER_ARGUMENTS:
                assert arguments(mine[method]) == arguments(other[method]), f"{name}.{method}"
