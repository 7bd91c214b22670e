"""The form `transformers-h5`, held to files that transformers' own TensorFlow classes saved.

The files, and what the saved models compute, are those of `tests/oracle/make_h5.py`.
"""

from __future__ import annotations

import json
import lzma
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from isobert.conversion.expected import expected_tensors
from isobert.conversion.formats.base import About, LazyTensor
from isobert.conversion.formats.foreign import ForeignFile
from isobert.conversion.formats.transformers_h5 import FAMILIES, open_h5, open_shards, recognises, why_refused, write
from isobert.conversion.names import family_names
from isobert.core.registry import FAMILIES as REGISTRY
from isobert.core.registry import model_class
from isobert.errors import CheckpointError, ConfigError
from support.compare import TOLERANCES, assert_close, relative_errors
from support.configs import CONFIG_SEEDS, random_config
from support.weights import random_value

FIXTURES = Path(__file__).parents[1] / "oracle" / "transformers-h5"
SAVED = sorted(str(path.parent.relative_to(FIXTURES)) for path in FIXTURES.glob("*/*/config.json"))
WHOLE = [name for name in SAVED if "-shards/" not in name]
SHARDED = [name for name in SAVED if "-shards/" in name]
# Saved from the first model of its class in a process; other models' names have a number at the end.
FIRST = [name for name in WHOLE if "-from-pytorch/" not in name]


def unpacked(name: str, folder: Path) -> Path:
    """Write a fixture into a folder as transformers saved it."""
    for path in (FIXTURES / name).iterdir():
        if path.suffix == ".xz":
            (folder / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def config_of(name: str) -> Any:
    """Return a fixture's config as an object of its family's class."""
    content = json.loads((FIXTURES / name / "config.json").read_text())
    return model_class_of(name, "pt").config_class.from_dict(content)


def model_class_of(name: str, framework: str) -> Any:
    """Return the class that a fixture was saved from, in a framework of ours."""
    content = json.loads((FIXTURES / name / "config.json").read_text())
    return model_class(content["model_type"], name.partition("/")[2], framework)


def random_tensors(config: Any, head: str, seed: int = 1, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Return the tensors of a model under the names of a model with a head."""
    prefix = f"{config.base_model_prefix}." if head == "Model" else ""
    shapes = {prefix + name: shape for name, shape in expected_tensors(config, head).items()}
    return {name: random_value(name, shape, seed).astype(dtype) for name, shape in shapes.items()}


def read_all(file: ForeignFile) -> dict[str, np.ndarray]:
    """Return all tensors of a file under the names of a model with a head, and close it."""
    encoder = [
        name for name in file.names() if name.startswith(("embeddings.", "encoder.", "pooler.", "embeddings_project."))
    ]
    names = file.foreign_names.values()
    base = next(family for family in FAMILIES if any(name.startswith(f"{family}/") for name in names))
    found = {f"{base}.{name}" if name in encoder else name: file.read(name) for name in file.names()}
    file.close()
    return found


def structure(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return every attribute and every tensor of an HDF5 file, by its place."""
    attributes: dict[str, Any] = {}
    tensors: dict[str, np.ndarray] = {}

    def listed(name: str, value: np.ndarray) -> list[Any]:
        # The kind of the strings too: of any length, or cut to one length. The order of a layer's says nothing.
        return sorted(value.tolist()) if name == "weight_names" else value.tolist()

    def visit(place: str, held: Any) -> None:
        for name, value in held.attrs.items():
            attributes[f"{place}@{name}"] = listed(name, value) if isinstance(value, np.ndarray) else value
        if isinstance(held, h5py.Dataset):
            tensors[place] = held[...]
        else:
            attributes[place] = None

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return attributes, tensors


def test_every_head_of_every_family_was_saved() -> None:
    saved = {
        (json.loads((FIXTURES / name / "config.json").read_text())["model_type"], name.split("/")[1]) for name in SAVED
    }
    assert saved == {(family, head) for family in FAMILIES for head in REGISTRY[family].heads}


@pytest.mark.parametrize("framework", ["pt", "tf"])
@pytest.mark.parametrize("name", SAVED)
def test_a_checkpoint_that_transformers_saved_computes_here_what_it_computed_there(
    name: str, framework: str, tmp_path: Path
) -> None:
    model, info = model_class_of(name, framework).from_pretrained(unpacked(name, tmp_path), output_loading_info=True)
    assert not info
    with np.load(tmp_path / "outputs.npz") as held:
        inputs = {key.removeprefix("inputs/"): held[key] for key in held.files if key.startswith("inputs/")}
        expected = {key.removeprefix("outputs/"): held[key] for key in held.files if key.startswith("outputs/")}
    found = model.trace(inputs, gradients=False).outputs
    assert_close(relative_errors(found, expected), TOLERANCES["float32"])


@pytest.mark.parametrize("name", FIRST)
def test_a_file_of_transformers_written_again_is_the_same_file(name: str, tmp_path: Path) -> None:
    original = unpacked(name, tmp_path) / "tf_model.h5"
    tensors = read_all(open_h5(original))
    write(tmp_path / "again.h5", tensors, About(config_of(name), name.partition("/")[2]))
    (attributes, arrays), (again_attributes, again) = structure(original), structure(tmp_path / "again.h5")
    assert again_attributes == attributes
    assert again.keys() == arrays.keys()
    for place, array in arrays.items():
        assert (again[place].dtype, again[place].shape) == (array.dtype, array.shape)
        assert again[place].tobytes() == array.tobytes(), place


@pytest.mark.parametrize("name", WHOLE)
def test_every_tensor_of_a_file_is_told_as_the_hubs_or_left_out_with_a_reason(name: str, tmp_path: Path) -> None:
    path = unpacked(name, tmp_path) / "tf_model.h5"
    assert recognises(path)
    _, arrays = structure(path)
    file = open_h5(path)
    assert len(file.names()) + len(file.left_out) == len(arrays)
    assert all(file.left_out.values())
    config, head = config_of(name), name.partition("/")[2]
    aliases = {alias for alias, _ in family_names(config.model_type).tied}
    shapes = {hub: file.shape(hub) for hub in file.names()}
    expected = expected_tensors(config, head)
    assert {hub: shape for hub, shape in shapes.items() if hub in expected} == expected
    assert shapes.keys() - expected.keys() <= aliases
    assert {file.dtype(hub) for hub in shapes} == {"float32"}


@pytest.mark.parametrize(("family", "head"), [(family, head) for family in FAMILIES for head in REGISTRY[family].heads])
def test_what_is_written_is_read_back_to_the_bit_or_refused_for_a_reason(
    family: str, head: str, tmp_path: Path
) -> None:
    path, written = tmp_path / "tf_model.h5", 0
    for seed in CONFIG_SEEDS:
        config = random_config(family, seed)
        try:
            tensors = random_tensors(config, head, seed)
        except ConfigError:
            continue
        if why_refused(config, head) is not None:
            with pytest.raises(CheckpointError, match="safetensors"):
                write(tmp_path / "refused.h5", tensors, About(config, head))
            assert not (tmp_path / "refused.h5").exists()
            continue
        write(path, tensors, About(config, head))
        found = read_all(open_h5(path))
        table = "cls.predictions.decoder.weight"
        if head in ("ForPreTraining", "ForMaskedLM", "ForCausalLM") and family != "convbert" and table not in tensors:
            source = dict(family_names(family).tied)[table]
            assert found.pop(table).tobytes() == tensors[source].tobytes()
        assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
            name: (a.dtype, a.shape, a.tobytes()) for name, a in tensors.items()
        }
        written += 1
    assert written


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_dtypes_are_kept(dtype: type, tmp_path: Path) -> None:
    config = random_config("convbert", 0, head_ratio=2, num_attention_heads=2, hidden_act="gelu")
    tensors = random_tensors(config, "Model", dtype=dtype)
    write(tmp_path / "tf_model.h5", tensors, About(config))
    found = read_all(open_h5(tmp_path / "tf_model.h5"))
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: a.tobytes() for name, a in tensors.items()
    }


def test_elements_in_the_other_byte_order_are_turned_around(tmp_path: Path) -> None:
    write(tmp_path / "tf_model.h5", *small())
    with h5py.File(tmp_path / "tf_model.h5", "r+") as file:
        place = "classifier/tf_rem_bert_for_sequence_classification/classifier/bias:0"
        values = file[place][...]
        del file[place]
        file[place] = values.astype(">f4")
    file = open_h5(tmp_path / "tf_model.h5")
    assert file.read("classifier.bias").dtype == np.dtype(np.float32)
    np.testing.assert_array_equal(file.read("classifier.bias"), values)


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, *small())
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_list_of_names_too_long_for_one_attribute_is_cut_as_keras_does_it(tmp_path: Path) -> None:
    config = random_config(
        "mobilebert",
        0,
        hidden_act="relu",
        num_hidden_layers=24,
        num_feedforward_networks=4,
        normalization_type="no_norm",
        key_query_shared_bottleneck=True,
    )
    tensors = random_tensors(config, "Model")
    write(tmp_path / "tf_model.h5", tensors, About(config))
    with h5py.File(tmp_path / "tf_model.h5") as file:
        attributes = file["mobilebert"].attrs
        assert "weight_names" not in attributes
        assert len(attributes) > 1
        assert all(attributes[f"weight_names{number}"].nbytes <= 64512 for number in range(len(attributes)))
    assert read_all(open_h5(tmp_path / "tf_model.h5")).keys() == tensors.keys()


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    widths = {"vocab_size": 20_000, "input_embedding_size": 24, "output_embedding_size": 25}
    config = random_config("rembert", 0, hidden_act="relu", tie_word_embeddings=False, **widths)
    shapes = {name: value.shape for name, value in random_tensors(config, "ForMaskedLM").items()}
    largest = 20_000 * 25 * 4
    tensors = {
        name: LazyTensor(shape, np.dtype(np.float32), lambda shape=shape: np.ones(shape, np.float32))
        for name, shape in shapes.items()
    }
    tracemalloc.start()
    try:
        write(tmp_path / "tf_model.h5", tensors, About(config, "ForMaskedLM"))
        assert largest <= tracemalloc.get_traced_memory()[1] < 1.5 * largest
        tracemalloc.reset_peak()
        file = open_h5(tmp_path / "tf_model.h5")
        assert tracemalloc.get_traced_memory()[1] < 0.5 * largest
        for name in file.names():
            file.read(name)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * largest
    finally:
        tracemalloc.stop()
    file.close()


def small(head: str = "ForSequenceClassification") -> tuple[dict[str, np.ndarray], About]:
    """Return the tensors of a small RemBERT, and what else `write` wants."""
    config = random_config("rembert", 0, hidden_act="relu", num_hidden_layers=1)
    return random_tensors(config, head), About(config, head)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "tf_model.h5"
    write(path, *small())
    return path


def read_everything(file: ForeignFile) -> None:
    for name in file.names():
        file.read(name)


def assert_refused(path: Path, words: str) -> None:
    """Fail unless opening a file gives one error that names it and says these words."""
    with pytest.raises(CheckpointError, match=words) as caught:
        open_h5(path)
    assert str(path) in str(caught.value)


def test_a_family_that_never_had_tensorflow_classes_is_refused(tmp_path: Path) -> None:
    config = random_config("squeezebert", 0)
    with pytest.raises(CheckpointError, match="mobilebert, convbert, rembert alone"):
        write(tmp_path / "tf_model.h5", random_tensors(config, "ForMaskedLM"), About(config, "ForMaskedLM"))
    assert not (tmp_path / "tf_model.h5").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"about": About()}, r"no config\.json"),
        ({"name": "classifier.out_proj.weight"}, r"classifier\.out_proj\.weight"),
        ({"name": "cls.predictions.bias"}, r"cls\.predictions\.bias"),
        ({"dtype": ml_dtypes.bfloat16}, "bfloat16"),
        ({"dtype": np.int32}, "int32"),
    ],
)
def test_what_has_no_place_in_the_form_is_refused_by_name(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    tensors, about = small()
    tensors[change.get("name", "classifier.bias")] = np.zeros(3, change.get("dtype", np.float32))
    with pytest.raises(CheckpointError, match=words):
        write(tmp_path / "tf_model.h5", tensors, change.get("about", about))
    assert not (tmp_path / "tf_model.h5").exists()


def test_a_file_cut_short_is_refused(written: Path) -> None:
    whole = written.read_bytes()
    for length in (0, 4, 100, 1000, len(whole) // 2, len(whole) - 1):
        written.write_bytes(whole[:length])
        assert_refused(written, "damaged|no checkpoint of transformers")


def test_a_flipped_bit_gives_other_numbers_or_one_clear_error(written: Path) -> None:
    whole = written.read_bytes()
    random = np.random.default_rng(0)
    refusals = []
    for place in [*range(96), *random.integers(0, len(whole), 300)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        written.write_bytes(damaged)
        recognises(written)
        try:
            file = open_h5(written)
            read_everything(file)
            file.close()
        except CheckpointError as error:
            refusals.append(str(error))
    assert refusals
    assert all(str(written) in message for message in refusals)


def test_a_file_cut_short_after_it_was_opened_is_an_error_of_the_tensor(written: Path) -> None:
    file = open_h5(written)
    with open(written, "rb+") as raw:
        raw.truncate(5000)
    with pytest.raises(CheckpointError, match=r"tf_model\.h5"):
        read_everything(file)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1", b"PK\x03\x04" + bytes(600)])
def test_what_is_no_hdf5_is_neither_recognised_nor_opened(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tf_model.h5"
    path.write_bytes(content)
    assert not recognises(path)
    assert_refused(path, "damaged")


def test_a_missing_file_or_a_folder_is_not_recognised(tmp_path: Path) -> None:
    assert not recognises(tmp_path)
    assert not recognises(tmp_path / "tf_model.h5")


def test_the_file_of_another_model_is_refused_by_its_layers(tmp_path: Path) -> None:
    path = tmp_path / "tf_model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"bert", b"classifier"]
        for layer in ("bert", "classifier"):
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"tf_bert/{layer}/dense/kernel:0".encode()]
            group[f"tf_bert/{layer}/dense/kernel:0"] = np.zeros((2, 2), np.float32)
    assert_refused(path, "bert, classifier")


def test_an_hdf5_file_without_layers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((2, 2), np.float32)
    assert not recognises(path)
    assert_refused(path, "lists no layers|no layers")


def changes() -> Iterator[tuple[str, Any, str]]:
    """Yield ways to spoil a file, each with its name and with words of the error."""
    layer = "rembert/tf_rem_bert_for_sequence_classification/rembert"
    own = "classifier/tf_rem_bert_for_sequence_classification/classifier"

    def rename(file: h5py.File) -> None:
        names = list(file["classifier"].attrs["weight_names"])
        file["classifier"].attrs["weight_names"] = [name.replace("kernel", "matrix") for name in names]
        file.move(f"{own}/kernel:0", f"{own}/matrix:0")

    def replace(file: h5py.File, place: str, value: Any) -> None:
        if place in file:
            del file[place]
        file[place] = value

    def outside(file: h5py.File) -> None:
        del file[f"{own}/bias:0"]
        file[own].create_dataset("bias:0", (3,), np.float32, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])

    yield "a tensor of no table", rename, "classifier/matrix:0"
    yield "a tensor that is not listed", lambda file: replace(file, f"{layer}/more", np.zeros(2, "f4")), "rembert/more"
    yield "a tensor of two models", lambda file: file.copy(own, file["classifier"], "tf/classifier"), "twice"
    yield "whole numbers", lambda file: replace(file, f"{own}/bias:0", np.zeros(3, "i4")), "int32"
    yield "elements in another file", outside, "another file"


@pytest.mark.parametrize(("spoil", "words"), [pytest.param(it, words, id=name) for name, it, words in changes()])
def test_a_file_that_was_changed_is_refused_by_the_name_of_what_is_wrong(spoil: Any, words: str, written: Path) -> None:
    with h5py.File(written, "r+") as file:
        spoil(file)
    assert_refused(written, words)


def test_a_link_is_not_followed(written: Path) -> None:
    place = "classifier/tf_rem_bert_for_sequence_classification/classifier/bias:0"
    with h5py.File(written.with_name("other.h5"), "w") as other:
        other["x"] = np.zeros(3, np.float32)
    for link in (h5py.ExternalLink("other.h5", "/x"), h5py.SoftLink("/classifier/x")):
        with h5py.File(written, "r+") as file:
            del file[place]
            file[place] = link
        opened = open_h5(written)
        assert "classifier.weight" in opened.names()
        assert "classifier.bias" not in opened.names()
        opened.close()


def test_a_convolution_with_too_few_axes_is_refused(tmp_path: Path) -> None:
    path = unpacked("convbert/Model", tmp_path) / "tf_model.h5"
    with h5py.File(path, "r+") as file:
        places: list[str] = []
        file.visit(lambda place: places.append(place))
        place = next(place for place in places if place.endswith("depthwise_kernel:0"))
        del file[place]
        file[place] = np.zeros((3, 4), np.float32)
    assert_refused(path, "three axes")


def opened_shards(folder: Path) -> ForeignFile:
    """Open the shards of a folder through their index."""
    index = folder / "tf_model.h5.index.json"
    where = json.loads(index.read_text())["weight_map"]
    return open_shards(index, where, {shard: folder / shard for shard in set(where.values())})


@pytest.mark.parametrize("name", SHARDED)
def test_shards_hold_together_what_the_whole_file_holds(name: str, tmp_path: Path) -> None:
    case, head = name.split("/")
    (tmp_path / "whole").mkdir()
    whole = read_all(open_h5(unpacked(f"{case.removesuffix('-shards')}/{head}", tmp_path / "whole") / "tf_model.h5"))
    shards = unpacked(name, tmp_path)
    assert all(recognises(path) for path in shards.glob("*.h5"))
    found = read_all(opened_shards(shards))
    assert {name: array.tobytes() for name, array in found.items()} == {name: a.tobytes() for name, a in whole.items()}


def test_an_index_that_names_what_its_shards_do_not_hold_is_refused(tmp_path: Path) -> None:
    folder = unpacked(SHARDED[0], tmp_path)
    index = folder / "tf_model.h5.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["tf_model/classifier/kernel:0"] = next(iter(content["weight_map"].values()))
    index.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="classifier/kernel:0"):
        opened_shards(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = unpacked(SHARDED[0], tmp_path)
    first, second = sorted(folder.glob("*.h5"))[:2]
    second.write_bytes(first.read_bytes())
    index = folder / "tf_model.h5.index.json"
    with pytest.raises(CheckpointError, match="two shards"):
        open_shards(index, {}, {path.name: path for path in (first, second)})
