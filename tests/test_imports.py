"""Nothing is imported that was not asked for: the layers stand without the frameworks, and the frameworks apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FRAMEWORKS = {"torch", "tensorflow", "keras", "jax"}
SLOW_TO_IMPORT = FRAMEWORKS | {"transformers", "tokenizers", "sentencepiece", "huggingface_hub", "matplotlib", "numpy"}


def modules_after(code: str) -> set[str]:
    """Run `code` in a new interpreter and return the top-level modules it has loaded."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_of(layer: str) -> list[str]:
    paths = sorted((ROOT / layer).rglob("*.py"))
    return [".".join(["isobert", *path.relative_to(ROOT).with_suffix("").parts]) for path in paths]


def test_importing_the_package_loads_nothing_slow() -> None:
    assert not modules_after("import isobert") & SLOW_TO_IMPORT


def test_importing_the_package_takes_no_time() -> None:
    # It takes a few milliseconds; a framework would take seconds. The bound leaves room for a busy machine.
    code = "import time; start = time.perf_counter(); import isobert; print(time.perf_counter() - start)"
    took = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert took < 1.0


@pytest.mark.parametrize("layer", ["core", "tokenization", "conversion"])
def test_a_layer_below_the_frameworks_loads_none_of_them(layer: str) -> None:
    assert modules_of(layer)
    assert not modules_after("import " + ", ".join(modules_of(layer))) & FRAMEWORKS


def test_a_config_is_made_without_a_framework() -> None:
    assert not modules_after("import isobert; isobert.MobileBertConfig()") & FRAMEWORKS


def test_a_pytorch_model_loads_no_tensorflow() -> None:
    assert not modules_after("import isobert; isobert.MobileBertModel") & {"tensorflow", "keras", "jax"}


def test_a_keras_model_loads_no_pytorch() -> None:
    assert "torch" not in modules_after("import isobert; isobert.TFMobileBertModel")


def test_every_public_name_is_listed() -> None:
    code = "import isobert; assert {'MobileBertForMaskedLM', 'TFMobileBertForMaskedLM'} <= set(dir(isobert))"
    assert not modules_after(code) & FRAMEWORKS
