"""Every family and head through every form and back: the same tensors, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isobert.conversion.checkpoint import open_checkpoint, write_checkpoint
from isobert.conversion.convert import convert
from isobert.conversion.expected import expected_tensors
from isobert.conversion.formats import writable_forms
from isobert.conversion.formats.transformers_h5 import why_refused
from isobert.core.registry import FAMILIES
from isobert.errors import CheckpointError
from support.configs import CONFIG_SEEDS, random_config
from support.weights import random_value

HEADS = [(family.model_type, head) for family in FAMILIES.values() for head in family.heads]


def make_checkpoint(folder: Path, family: str, head: str, seed: int) -> tuple[object, dict[str, np.ndarray]]:
    config = random_config(family, seed)
    shapes = expected_tensors(config, head)
    tensors = {name: random_value(name, shape, seed).astype(np.float32) for name, shape in shapes.items()}
    write_checkpoint(folder, tensors)
    config.replace(architectures=[FAMILIES[family].model_name(head, "pt")]).save_pretrained(folder)
    return config, tensors


def assert_holds(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    with open_checkpoint(folder) as checkpoint:
        assert sorted(checkpoint.names()) == sorted(tensors)
        for name, tensor in tensors.items():
            found = checkpoint.read(name)
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), name
            assert found.tobytes() == tensor.tobytes(), name


def through_every_form(folder: Path, family: str, head: str, seed: int) -> None:
    """From the native form to each form and back, and from each form to the next."""
    config, tensors = make_checkpoint(folder / "native", family, head, seed)
    last, digests = "native", set()
    for form in writable_forms():
        refused = why_refused(config, head) if form == "transformers-h5" else None
        if refused is not None:
            with pytest.raises(CheckpointError) as caught:
                convert(folder / last, folder / form, to=form)
            assert refused in str(caught.value)
            continue
        there = convert(folder / last, folder / form, to=form, head=head)
        back = convert(folder / form, folder / f"{form}-back", head=head)
        assert (there.form, back.source_form) == (form, form)
        assert_holds(folder / f"{form}-back", tensors)
        digests |= {there.digest, back.digest}
        last = form
    assert len(digests) == 1


@pytest.mark.parametrize(("family", "head"), HEADS)
def test_every_form_gives_back_the_same_bits_and_the_same_digest(tmp_path: Path, family: str, head: str) -> None:
    pytest.importorskip("torch")
    through_every_form(tmp_path, family, head, CONFIG_SEEDS[len(head) % len(CONFIG_SEEDS)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", CONFIG_SEEDS)
@pytest.mark.parametrize(("family", "head"), HEADS)
def test_so_it_is_with_other_configs(tmp_path: Path, family: str, head: str, seed: int) -> None:
    through_every_form(tmp_path, family, head, seed)


def test_a_digest_tells_other_tensors_apart(tmp_path: Path) -> None:
    _, tensors = make_checkpoint(tmp_path / "a", "rembert", "Model", 1)
    first = convert(tmp_path / "a", tmp_path / "b").digest
    name = sorted(tensors)[-1]
    changed = tensors | {name: np.nextafter(tensors[name], np.float32(9))}
    write_checkpoint(tmp_path / "a", changed)
    assert convert(tmp_path / "a", tmp_path / "c").digest != first
