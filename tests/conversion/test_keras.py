"""Keras's own files, held to what Keras itself writes and opens."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from isobert.conversion.expected import expected_tensors
from isobert.conversion.formats import keras as keras_form
from isobert.conversion.formats import keras_weights
from isobert.conversion.formats.base import About, LazyTensor
from isobert.core.registry import FAMILIES, model_class
from isobert.core.squeezebert import GROUPS
from isobert.errors import CheckpointError
from support.configs import CONFIG_SEEDS, random_config
from support.weights import parameters, random_value, randomise

HEADS = [(family, head) for family in FAMILIES for head in FAMILIES[family].heads]
LM_HEADS = ("ForPreTraining", "ForMaskedLM", "ForCausalLM")

OPEN: dict[str, Callable[[Path], Any]] = {
    "model.keras": keras_form.KerasFile,
    "model.weights.h5": keras_weights.open_weights,
}
WRITE: dict[str, Callable[..., None]] = {"model.keras": keras_form.write, "model.weights.h5": keras_weights.write}


def cases() -> Iterator[Any]:
    """Every class with one config, those that score words with a shared table and without; more configs are slow."""
    for number, (family, head) in enumerate(HEADS):
        chosen = number % len(CONFIG_SEEDS)
        for more in range(2):
            seed = (chosen + more) % len(CONFIG_SEEDS)
            marks = pytest.mark.slow if more else ()
            yield pytest.param((family, head, seed, {}), id=f"{family}-{head}-{seed}", marks=marks)
        if head in LM_HEADS:
            tied = random_config(family, chosen).tie_word_embeddings
            changed = {"tie_word_embeddings": not tied}
            if family == "rembert" and not tied:
                changed["output_embedding_size"] = random_config(family, chosen).input_embedding_size
            yield pytest.param((family, head, chosen, changed), id=f"{family}-{head}-{'untied' if tied else 'tied'}")
    # Every convolution with groups of its own number.
    groups = dict(zip(GROUPS, (1, 2, 3, 4, 6, 12), strict=True))
    yield pytest.param(("squeezebert", "Model", 0, groups), id="squeezebert-Model-groups")


@dataclass
class Saved:
    """A Keras model, its parameters, and its files: as Keras saved them, and as they are written here."""

    model: Any
    config: Any
    head: str
    parameters: dict[str, np.ndarray]
    by_keras: Path
    by_isobert: Path


def full_names(arrays: dict[str, np.ndarray], config: Any, head: str) -> dict[str, np.ndarray]:
    """Return tensors under their names in a model with a head."""
    prefix = f"{config.base_model_prefix}." if head == "Model" else ""
    return {prefix + name: array for name, array in arrays.items()}


@pytest.fixture(scope="module", params=cases())
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    pytest.importorskip("keras")
    family, head, seed, changed = request.param
    config = random_config(family, seed, **changed)
    model = randomise(model_class(family, head, "tf")(config), seed)
    by_keras, by_isobert = tmp_path_factory.mktemp("keras"), tmp_path_factory.mktemp("isobert")
    model.save(by_keras / "model.keras")
    model.save_weights(by_keras / "model.weights.h5")
    held = parameters(model)
    for name, write in WRITE.items():
        write(by_isobert / name, full_names(held, config, head), About(config, head))
    yield Saved(model, config, head, held, by_keras, by_isobert)
    shutil.rmtree(by_keras)
    shutil.rmtree(by_isobert)


@pytest.mark.parametrize("name", OPEN)
def test_a_file_of_keras_opens_with_every_variable_bit_for_bit(saved: Saved, name: str) -> None:
    assert_holds(saved.by_keras / name, saved.parameters)


@pytest.mark.parametrize("name", OPEN)
def test_what_is_written_reads_back_bit_for_bit(saved: Saved, name: str) -> None:
    assert_holds(saved.by_isobert / name, saved.parameters)


def test_the_weights_that_are_written_are_where_keras_has_them(saved: Saved) -> None:
    assert variables_in(saved.by_isobert / "model.weights.h5") == variables_in(saved.by_keras / "model.weights.h5")


def test_the_config_that_is_written_is_that_of_keras_key_by_key(saved: Saved) -> None:
    members = {}
    for folder in (saved.by_keras, saved.by_isobert):
        with zipfile.ZipFile(folder / "model.keras") as archive:
            members[folder] = {
                name: json.loads(archive.read(name)) if name.endswith(".json") else None for name in archive.namelist()
            }
    theirs, ours = members[saved.by_keras], members[saved.by_isobert]
    # Keras numbers the models of one class by their names, and notes the time.
    theirs["config.json"]["config"]["name"] = theirs["config.json"]["config"]["name"].rstrip("_0123456789")
    theirs["metadata.json"]["date_saved"] = ours["metadata.json"]["date_saved"]
    assert list(ours) == list(theirs)
    assert ours == theirs


def test_keras_opens_what_is_written_with_equal_variables_and_outputs(saved: Saved) -> None:
    import keras

    model = keras.saving.load_model(saved.by_isobert / "model.keras")
    assert type(model) is type(saved.model)
    assert model.get_config() | {"name": ""} == saved.model.get_config() | {"name": ""}
    assert_equal(parameters(model), saved.parameters)
    ids = np.array([[5, 7, 11, 3], [2, 9, 4, 6]])
    inputs = {"input_ids": ids[None] if saved.head == "ForMultipleChoice" else ids}
    ours, theirs = (dict(m(**inputs)) for m in (model, saved.model))
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(*(np.asarray(keras.tree.flatten(o[name])[0]) for o in (ours, theirs)))
    randomise(model, seed=99)
    model.load_weights(saved.by_isobert / "model.weights.h5")
    assert_equal(parameters(model), saved.parameters)


def assert_holds(path: Path, expected: dict[str, np.ndarray]) -> None:
    file = OPEN[path.name](path)
    try:
        file.check(str)
        assert {name: (file.shape(name), file.dtype(name)) for name in file.names()} == {
            name: (array.shape, array.dtype.name) for name, array in expected.items()
        }
        assert_equal({name: file.read(name) for name in file.names()}, expected)
        assert not file.left_out
    finally:
        file.close()


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name


def variables_in(path: Path) -> dict[str, Any]:
    """Return every array of a file, and every name of a layer, that has any, by their places."""
    found: dict[str, Any] = {}

    def visit(place: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[place] = item.shape, item.dtype, dict(item.attrs), item[()].tobytes()
        elif place.endswith("/vars") and len(item):
            found[place] = dict(item.attrs)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


# The rest needs one model, and mostly no Keras.


def small(dtype: Any = np.float32, head: str = "ForMaskedLM", **changed: Any) -> tuple[dict[str, np.ndarray], About]:
    """Return the tensors of a small model under full names, and what it is."""
    config = random_config("mobilebert", 1, num_hidden_layers=1, num_feedforward_networks=1, **changed)
    tensors = {
        name: random_value(name, shape, 0).astype(dtype) for name, shape in expected_tensors(config, head).items()
    }
    return full_names(tensors, config, head), About(config, head)


@pytest.fixture(params=OPEN)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small model's file, in both forms."""
    path: Path = tmp_path / request.param
    WRITE[path.name](path, *small())
    return path


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_bfloat16"])
def test_every_dtype_goes_to_keras_and_comes_back(dtype: str, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    held = "float32" if dtype == "mixed_bfloat16" else dtype
    tensors, about = small(ml_dtypes.bfloat16 if held == "bfloat16" else held, "ForSequenceClassification")
    keras_form.write(tmp_path / "model.keras", tensors, about)
    assert_holds(tmp_path / "model.keras", tensors)
    # Once its module is imported, Keras knows the class.
    expected_class = model_class("mobilebert", "ForSequenceClassification", "tf")
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert type(model) is expected_class
    assert model.dtype_policy.name == held
    assert_equal(parameters(model), tensors)
    again = expected_class(about.config, dtype=dtype)
    again.set_weights(model.get_weights())
    for name in OPEN:
        path = tmp_path / "again" / name
        path.parent.mkdir(exist_ok=True)
        (again.save if name == "model.keras" else again.save_weights)(path)
        assert_holds(path, tensors)


def test_a_trained_models_optimizer_is_left_out_with_a_reason(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    _, about = small()
    model = model_class("mobilebert", "ForSequenceClassification", "tf")(about.config)
    model.compile(optimizer=keras.optimizers.Adam(), weighted_metrics=["accuracy"])
    model.fit({"input_ids": np.arange(8).reshape(2, 4), "labels": np.array([0, 1])}, verbose=0)
    model.save(tmp_path / "model.keras")
    file = keras_form.KerasFile(tmp_path / "model.keras")
    assert_equal({name: file.read(name) for name in file.names()}, parameters(model))
    assert set(file.left_out) == {f"optimizer/vars/{i}" for i in range(len(model.optimizer.variables))}
    assert set(file.left_out.values()) == {"since it is the state of an optimizer"}
    file.close()


@pytest.mark.parametrize("family", ["mobilebert", "rembert", "squeezebert"])
def test_an_encoder_without_a_pooler_opens(family: str, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    model = model_class(family, "Model", "tf")(random_config(family, 1), add_pooling_layer=False, name="mine")
    model.save(tmp_path / "model.keras")
    assert_holds(tmp_path / "model.keras", parameters(model))


def test_an_archive_tells_the_models_config_and_class(tmp_path: Path) -> None:
    tensors, about = small(num_labels=3)
    keras_form.write(tmp_path / "model.keras", tensors, about)
    file = keras_form.KerasFile(tmp_path / "model.keras")
    assert file.config == {**about.config.to_dict(), "architectures": ["MobileBertForMaskedLM"]}
    file.close()


def test_the_same_model_always_makes_the_same_file(path: Path) -> None:
    first = path.read_bytes()
    path.unlink()
    WRITE[path.name](path, *small())
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    tensors, about = small(hidden_size=512, intra_bottleneck_size=512, intermediate_size=512, num_attention_heads=1)
    sizes = [array.nbytes for array in tensors.values()]

    def lazy(array: np.ndarray) -> LazyTensor:
        return LazyTensor(array.shape, array.dtype, array.copy)

    for name in OPEN:
        tracemalloc.start()
        WRITE[name](tmp_path / name, {key: lazy(array) for key, array in tensors.items()}, about)
        _, wrote = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        file = OPEN[name](tmp_path / name)
        file.check(str)
        for key in file.names():
            file.read(key)
        _, read = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        file.close()
        # The largest tensor, its copy in the other layout, what is copied at a time, and the descriptions.
        allowed = 2 * max(sizes) + 3 * 2**20
        assert max(wrote, read) < allowed < sum(sizes), name


def test_each_form_knows_its_own_files_and_no_others(tmp_path: Path) -> None:
    forms = {"model.keras": keras_form, "model.weights.h5": keras_weights}
    others = {
        "empty": b"",
        "text": b"no checkpoint",
        "archive": b"PK\x03\x04" + bytes(100),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    }
    for name, write in WRITE.items():
        write(tmp_path / name, *small())
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    with h5py.File(tmp_path / "keras-2.h5", "w") as file:
        file.attrs["layer_names"] = ["mobilebert"]
        file.create_group("layers")
    for name, form in forms.items():
        assert [entry.name for entry in sorted(tmp_path.iterdir()) if form.recognises(entry)] == [name]


def opened_whole(path: Path) -> dict[str, bytes]:
    """Open a file, check it and read everything."""
    file = OPEN[path.name](path)
    try:
        file.check(str)
        return {name: file.read(name).tobytes() for name in file.names()}
    finally:
        file.close()


def opened_or_refused(path: Path) -> tuple[dict[str, bytes], str]:
    """Return a file's tensors and no message, or no tensors and why it was refused; anything else fails the test."""
    try:
        return opened_whole(path), ""
    except CheckpointError as error:
        return {}, str(error)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=path.name):
        opened_whole(path)


# Not 10: it flips the size of an entry in HDF5's heap of texts, over which HDF5 1.14 and 2.0 loop for ever.
_SEEDS = [seed for seed in range(1, 20) if seed != 10]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in _SEEDS)])
def test_a_flipped_bit_is_found_or_changes_nothing(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras_form.write(path, *small())
    content, whole = path.read_bytes(), opened_whole(path)
    random = np.random.default_rng(seed)
    found = 0
    for _ in range(60):
        broken = bytearray(content)
        # Half of them among the first and last bytes, where the config and the archive's own tables are.
        ends = random.random() < 0.5
        at = int(random.integers(-1500, 1500)) if ends else int(random.integers(len(content)))
        broken[at] ^= 1 << int(random.integers(8))
        path.write_bytes(broken)
        read, message = opened_or_refused(path)
        assert read == whole or path.name in message
        found += read != whole
    assert found > 30


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in _SEEDS)])
def test_a_flipped_bit_where_no_checksum_is_kept_fails_as_a_damaged_checkpoint_or_not_at_all(
    seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.weights.h5"
    keras_weights.write(path, *small())
    content = path.read_bytes()
    random = np.random.default_rng(seed)
    for _ in range(40):
        broken = bytearray(content)
        broken[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        path.write_bytes(broken)
        read, message = opened_or_refused(path)
        assert read or path.name in message


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of somebody else: one that has nothing of ours, one around ours, one that subclasses ours."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("strangers")
    ours = model_class("mobilebert", "ForSequenceClassification", "tf")

    class Mine(ours):  # type: ignore[misc,valid-type]
        pass

    config = small()[1].config
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    for name, model in {
        "other": keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
        "around": keras.Model(ids, ours(config)({"input_ids": ids})["logits"]),
        "mine": Mine(config),
    }.items():
        (folder / name).mkdir()
        model.save(folder / name / "model.keras")
        model.save_weights(folder / name / "model.weights.h5")
    return folder


@pytest.mark.parametrize(
    ("model", "file"),
    [*((model, file) for model in ("other", "around") for file in OPEN), ("mine", "model.keras")],
)
def test_another_model_is_refused_and_told_apart_from_damage(strangers: Path, model: str, file: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{file} holds .* this library.*save that part alone"):
        OPEN[file](strangers / model / file)


def test_the_weights_of_a_model_that_adds_nothing_to_ours_open(strangers: Path) -> None:
    file = keras_weights.open_weights(strangers / "mine" / "model.weights.h5")
    assert "classifier.weight" in file.names()
    file.close()


def altered(path: Path, member: str, change: Callable[[bytes], bytes | None], compress: bool = False) -> Path:
    """Return a copy of an archive with a member changed, or left out."""
    copy = path.with_name("copy.keras")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            content: bytes | None = source.read(name)
            if name == member:
                content = change(content or b"")
            if content is not None:
                kind = zipfile.ZIP_DEFLATED if compress and name == member else zipfile.ZIP_STORED
                target.writestr(name, content, kind)
    return copy


def changed_config(**fields: Any) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        told = json.loads(content)
        told["config"]["config"] |= fields
        return json.dumps(told).encode()

    return change


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("config.json", lambda _: b"{", "config.json is not JSON"),
        ("config.json", lambda _: b"\xff\xfe\xfd", "config.json is not JSON"),
        ("config.json", lambda _: b"[]", "config.json is a list"),
        ("config.json", lambda _: b"{}", "Keras model None, which is none of this library's"),
        ("config.json", lambda _: None, "has no config.json"),
        ("config.json", changed_config(hidden_act="poetry"), "not legal.*hidden_act"),
        ("config.json", changed_config(hidden_size="wide"), "not legal.*hidden_size"),
        ("config.json", changed_config(model_type="convbert"), "not legal.*convbert"),
        ("config.json", changed_config(num_hidden_layers=2), "disagree about mobilebert.encoder.layer.1"),
        ("config.json", changed_config(vocab_size=38), "disagree about cls.predictions.bias"),
        ("model.weights.h5", lambda _: None, "has no model.weights.h5"),
        ("model.weights.h5", lambda _: b"no HDF5", "cannot be read as HDF5"),
        ("model.weights.h5", lambda content: content[:5000], "cannot be read as HDF5|is damaged"),
    ],
)
def test_an_archive_whose_parts_are_wrong_is_refused(tmp_path: Path, member: str, change: Any, message: str) -> None:
    keras_form.write(tmp_path / "model.keras", *small())
    with pytest.raises(CheckpointError, match=f"copy.keras.*{message}"):
        keras_form.KerasFile(altered(tmp_path / "model.keras", member, change))


def test_compressed_weights_are_refused_with_the_cure(tmp_path: Path) -> None:
    keras_form.write(tmp_path / "model.keras", *small())
    copy = altered(tmp_path / "model.keras", "model.weights.h5", lambda content: content, compress=True)
    with pytest.raises(CheckpointError, match=r"copy.keras: model.weights.h5 is compressed.*without compression"):
        keras_form.KerasFile(copy)


def test_a_compressed_config_opens(tmp_path: Path) -> None:
    keras_form.write(tmp_path / "model.keras", *small())
    keras_form.KerasFile(altered(tmp_path / "model.keras", "config.json", lambda c: c, compress=True)).close()


def test_weights_of_another_family_in_an_archive_are_refused(tmp_path: Path) -> None:
    keras_form.write(tmp_path / "model.keras", *small())
    config = random_config("convbert", 0)
    tensors = {name: random_value(name, shape, 0) for name, shape in expected_tensors(config, "ForMaskedLM").items()}
    keras_weights.write(tmp_path / "other.h5", tensors, About(config, "ForMaskedLM"))
    content = (tmp_path / "other.h5").read_bytes()
    with pytest.raises(CheckpointError, match=r"copy.keras: its config is of MobileBert, its weights are ConvBert's"):
        keras_form.KerasFile(altered(tmp_path / "model.keras", "model.weights.h5", lambda _: content))


def test_a_variable_that_is_none_of_its_layers_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    keras_weights.write(path, *small())
    with h5py.File(path, "a") as file:
        file["cls/predictions/transform/dense/vars/2"] = np.zeros(3)
    with pytest.raises(CheckpointError, match=r"model.weights.h5.*cls/predictions/transform/dense/vars/0"):
        keras_weights.open_weights(path)


def test_a_variable_that_lies_in_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    keras_weights.write(path, *small())
    with h5py.File(path, "a") as file:
        variables = file["cls/predictions/vars"]
        shape = variables["0"].shape
        del variables["0"]
        variables.create_dataset("0", shape, np.float32, external=[(tmp_path / "secret", 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(CheckpointError, match=r"cls/predictions/vars/0 is no array of this file"):
        keras_weights.open_weights(path)


def test_a_variable_that_was_never_filled_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    keras_weights.write(path, *small())
    with h5py.File(path, "a") as file:
        variables = file["cls/predictions/vars"]
        shape = variables["0"].shape
        del variables["0"]
        variables.create_dataset("0", shape, np.float32)
    with pytest.raises(CheckpointError, match=r"cls/predictions/vars/0 was never written"):
        keras_weights.open_weights(path)


@pytest.mark.parametrize("name", WRITE)
def test_a_model_without_a_config_cannot_be_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"without the model's config"):
        WRITE[name](tmp_path / name, small()[0], About())


def test_tensors_of_several_dtypes_are_no_keras_model(tmp_path: Path) -> None:
    tensors, about = small()
    name = next(iter(tensors))
    with pytest.raises(CheckpointError, match=r"float32, float64.*--dtype"):
        keras_form.write(tmp_path / "model.keras", {**tensors, name: tensors[name].astype(np.float64)}, about)
    assert not (tmp_path / "model.keras").exists()
