"""TensorFlow 1 checkpoints compute, once opened, what the graphs that wrote them did; damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle.make_tf1 import CASES, build
from oracle.tf1_graphs import INPUTS

import isobert
from isobert.conversion.convert import convert
from isobert.conversion.formats.tf1 import Tf1File, find, recognises
from isobert.conversion.formats.tf1_config import READERS, hub_config
from isobert.core.auto import config_class
from isobert.errors import CheckpointError, CheckpointNotFoundError, ConfigError, MissingDependencyError

INDEX = "model.ckpt-100.index"
DATA = "model.ckpt-100.data-00000-of-00001"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, np.ndarray]]]:
    """Return a function that builds a case once and gives its folder and the answers of its graph."""

    @cache
    def build_once(name: str) -> tuple[Path, dict[str, np.ndarray]]:
        folder = tmp_path_factory.mktemp(name)
        return folder, build(name, folder)

    return build_once


@pytest.fixture
def copied(built: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that gives a copy of a case's folder, to be altered."""
    return lambda name: Path(shutil.copytree(built(name)[0], tmp_path / name))


def converted(folder: Path, target: Path, **changes: Any) -> Any:
    """Convert the folder's checkpoint to the native form; return its config with `changes`, which is written too."""
    convert(folder, target)
    config = isobert.AutoConfig.from_pretrained(target, **changes)
    config.save_pretrained(target)
    return config


def answers(folder: Path, model_class: str) -> dict[str, np.ndarray]:
    """Return what a model of either framework answers for the inputs."""
    model: Any = getattr(isobert, model_class).from_pretrained(folder)
    if model_class.startswith("TF"):
        found = model(INPUTS, output_hidden_states=True)
    else:
        with torch.no_grad():
            inputs = {name: torch.from_numpy(array) for name, array in INPUTS.items()}
            found = model.eval()(**inputs, output_hidden_states=True)
    told = {name: np.asarray(found[name]) for name in found if not isinstance(found[name], tuple)}
    return {"last_hidden_state": np.asarray(found["hidden_states"][-1]), **told}


@pytest.mark.parametrize("name", CASES)
def test_both_frameworks_compute_what_the_authors_graph_does(built: Any, name: str, tmp_path: Path) -> None:
    folder, expected = built(name)
    # The authors' MobileBERT masks softly, and what is masked shows in the rows with padding.
    changes = {"attention_mask_value": -6.0} if name.startswith(("mobilebert", "ib-bert")) else {}
    config = converted(folder, tmp_path / "hub", **changes)
    assert config.architectures == [CASES[name].model]
    for framework in ("", "TF"):
        found = answers(tmp_path / "hub", framework + CASES[name].model)
        for field, array in expected.items():
            np.testing.assert_allclose(found[field], array, rtol=1e-5, atol=1e-5, err_msg=f"{framework} {field}")


@pytest.mark.parametrize("name", CASES)
def test_keys_that_a_json_lacks_have_the_authors_defaults(built: Any, name: str) -> None:
    folder, _ = built(name)
    content = hub_config(folder, folder / INDEX)
    config = config_class(content["model_type"]).from_dict(content)
    assert {key: getattr(config, key) for key in CASES[name].expected} == CASES[name].expected


@pytest.mark.parametrize("size", ["base", "medium-small", "small"])
def test_the_sizes_of_convberts_training_are_the_named_ones(size: str) -> None:
    config = isobert.ConvBertConfig.from_dict(READERS["convbert"]({"model_size": size}))
    assert config == isobert.ConvBertConfig.from_size(f"convbert-{size}")


def test_on_rows_without_padding_the_full_mask_of_the_hub_computes_the_same(built: Any, tmp_path: Path) -> None:
    folder, expected = built("mobilebert")
    assert converted(folder, tmp_path / "hub").attention_mask_value is None
    found = answers(tmp_path / "hub", "MobileBertForPreTraining")["prediction_logits"]
    np.testing.assert_allclose(found[0], expected["prediction_logits"][0], rtol=1e-5, atol=1e-5)
    assert np.abs(found[1] - expected["prediction_logits"][1]).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("mobilebert", ("global_step", "bert/pooler", "teacher/bert/embeddings/word_embeddings", "hidden_distill_0/")),
        ("mobilebert", ("bert/encoder/layer_0/output/dense/MobileBertWeightFakeQuantWithMinMaxVars/min",)),
        ("mobilebert", ("bert/embeddings/word_embeddings/adam_m", "bert/embeddings/word_embeddings/adam_v")),
        ("mobilebert-classifier", ("beta1_power", "beta2_power", "output_bias/Adam", "output_bias/Adam_1")),
        (
            "convbert-medium-small",
            ("generator/encoder/layer_0/output/g_dense/kernel", "generator_predictions/dense/bias"),
        ),
        ("convbert-medium-small", ("generator/embeddings_project/kernel", "discriminator_predictions/dense_1/kernel")),
        ("convbert-tagger", ("task_specific/cola/dense/kernel",)),
        ("rembert", ("cls/predictions/dense/kernel", "cls/predictions/output_embedding")),
    ],
)
def test_every_variable_is_told_as_one_of_the_hubs_or_left_out_with_a_reason(
    built: Any, name: str, left_out: tuple[str, ...]
) -> None:
    import tensorflow as tf

    folder, _ = built(name)
    file = Tf1File(folder / INDEX)
    variables = {variable for variable, _ in tf.train.list_variables(str(folder / "model.ckpt-100"))}
    told = set(file.foreign_names.values())
    assert not told & set(file.left_out)
    assert variables <= told | set(file.left_out)
    for begin in left_out:
        reasons = [why for variable, why in file.left_out.items() if variable.startswith(begin)]
        assert all(why.startswith("since ") for why in reasons)
        assert bool(reasons) == any(variable.startswith(begin) for variable in variables)


def test_a_checkpoint_of_the_bare_encoder_has_the_names_of_one(built: Any) -> None:
    folder, _ = built("mobilebert-bare")
    assert "embeddings.word_embeddings.weight" in Tf1File(folder / INDEX).names()


def test_an_index_is_recognised_by_its_content(built: Any, tmp_path: Path) -> None:
    folder, _ = built("rembert")
    assert recognises(Path(shutil.copy(folder / INDEX, tmp_path / "anything")))
    (tmp_path / "short.index").write_bytes(b"abc")
    (tmp_path / "empty.index").touch()
    others = [folder / DATA, folder / "checkpoint", tmp_path / "short.index", tmp_path / "empty.index", tmp_path]
    assert not any(recognises(path) for path in [*others, tmp_path / "absent"])


def _second(folder: Path) -> None:
    for name in (INDEX, DATA):
        shutil.copy(folder / name, folder / name.replace("100", "50"))


def test_of_two_checkpoints_the_one_that_tensorflows_note_names_is_found(copied: Any) -> None:
    folder = copied("rembert")
    _second(folder)
    assert find(folder) == folder / INDEX
    # The note of a training holds the path on its own machine.
    (folder / "checkpoint").write_text('model_checkpoint_path: "/home/someone/run/model.ckpt-50"\n')
    assert find(folder) == folder / "model.ckpt-50.index"


def test_of_two_checkpoints_without_a_note_none_is_guessed(copied: Any) -> None:
    folder = copied("rembert")
    _second(folder)
    (folder / "checkpoint").unlink()
    with pytest.raises(CheckpointError, match=r"several.*model\.ckpt-100\.index, model\.ckpt-50\.index"):
        find(folder)


@pytest.mark.parametrize("named", ["model.ckpt-7", "../model.ckpt-7", "/etc/model.ckpt-7"])
def test_a_note_that_names_no_checkpoint_of_the_folder_is_refused(copied: Any, named: str) -> None:
    folder = copied("rembert")
    for name in (INDEX, DATA):
        shutil.copy(folder / name, folder.parent / name.replace("100", "7"))
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    with pytest.raises(CheckpointError, match=r"names model\.ckpt-7.*not there.*model\.ckpt-100\.index"):
        find(folder)


def test_a_folder_without_a_checkpoint_holds_none(tmp_path: Path) -> None:
    (tmp_path / "faiss.index").write_bytes(b"something else" * 9)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert find(tmp_path) is None


def _cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


@pytest.mark.parametrize("count", [0, 30, -60, -1])
def test_an_index_that_was_cut_short_is_named(copied: Any, count: int) -> None:
    folder = copied("rembert")
    _cut(folder / INDEX, count)
    assert find(folder) == folder / INDEX
    with pytest.raises(CheckpointError, match=r"model\.ckpt-100\.index cannot be read.*damaged"):
        Tf1File(folder / INDEX)


def _read_all(folder: Path) -> None:
    file = Tf1File(folder / INDEX)
    for name in file.names():
        file.read(name)


def test_data_that_were_cut_short_are_named(copied: Any) -> None:
    folder = copied("rembert")
    _cut(folder / DATA, 1000)
    with pytest.raises(CheckpointError, match=r"model\.ckpt-100\.index: variable bert/\S+ cannot be read.*damaged"):
        _read_all(folder)


def test_a_flipped_bit_in_the_data_is_named(copied: Any) -> None:
    folder = copied("convbert-medium-small")
    data = bytearray((folder / DATA).read_bytes())
    file = Tf1File(folder / INDEX)
    value = file.read("encoder.layer.0.output.dense.weight").tobytes()
    data[data.index(value) + len(value) // 2] ^= 4
    (folder / DATA).write_bytes(data)
    with pytest.raises(CheckpointError, match=r"variable electra/encoder/layer_0/output/g_dense/kernel cannot be read"):
        _read_all(folder)


def test_missing_data_are_named_before_anything_is_read(copied: Any) -> None:
    folder = copied("rembert")
    (folder / DATA).unlink()
    with pytest.raises(CheckpointNotFoundError, match=r"needs model\.ckpt-100\.data-00000-of-00001"):
        Tf1File(folder / INDEX)
    (folder / "model.ckpt-100.data-00001-of-00003").touch()
    with pytest.raises(CheckpointNotFoundError, match=r"data-00000-of-00003, model\.ckpt-100\.data-00002-of-00003"):
        Tf1File(folder / INDEX)


def _saved(folder: Path, *names: str) -> Path:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name in names:
            v1.get_variable(name, [3, 3])
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    return folder / "model.ckpt.index"


def test_a_checkpoint_of_another_model_is_refused_by_its_variables(tmp_path: Path) -> None:
    index = _saved(tmp_path, "bert/embeddings/word_embeddings", "bert/encoder/layer_0/attention/self/query/kernel")
    with pytest.raises(CheckpointError, match=r"does not know \(bert/embeddings/word_embeddings, .*convbert"):
        Tf1File(index)


def test_a_variable_that_no_table_knows_is_named(tmp_path: Path) -> None:
    index = _saved(tmp_path, "bert/encoder/embedding_hidden_mapping_in/kernel", "bert/encoder/layer_0/experts/kernel")
    with pytest.raises(CheckpointError, match="none of this family's: bert/encoder/layer_0/experts/kernel"):
        Tf1File(index)


def test_without_tensorflow_the_extra_to_install_is_named(built: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = built("rembert")
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'isobert\[tf\]'"):
        Tf1File(folder / INDEX)


def _json_in(folder: Path, name: str) -> Path:
    return folder / CASES[name].json_name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"model_max_length": 512}', "rembert_config.json is no config of a model, since it lacks hidden_size and"),
        ("[1, 2]", "rembert_config.json: this config should hold an object"),
        ('{"hidden_size": ', "rembert_config.json: this config is not valid JSON"),
    ],
)
def test_a_json_that_is_no_config_is_named(copied: Any, text: str, message: str) -> None:
    folder = copied("rembert")
    _json_in(folder, "rembert").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        hub_config(folder, folder / INDEX)


def test_a_checkpoint_without_a_json_asks_for_one(copied: Any) -> None:
    folder = copied("convbert")
    _json_in(folder, "convbert").unlink()
    with pytest.raises(CheckpointNotFoundError, match=r'no JSON with its config\. Put .*\{"model_size": "base"\}'):
        hub_config(folder, folder / INDEX)


def test_of_two_configs_none_is_guessed(copied: Any) -> None:
    folder = copied("rembert")
    shutil.copy(_json_in(folder, "rembert"), folder / "another.json")
    with pytest.raises(CheckpointError, match=r"several configs: another\.json, rembert_config\.json"):
        hub_config(folder, folder / INDEX)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rembert", {"hidden_size": 20}, r"another model.*\[16, 16\] in the checkpoint and \[20, 20\] in the model"),
        ("rembert", {"num_hidden_layers": 3}, r"another model.*encoder\.layer\.2\.\S+ is in the config's model alone"),
        ("rembert", {"num_hidden_layers": 1}, r"another model.*bert/encoder/layer_1/\S+ is in the checkpoint alone"),
        (
            "mobilebert",
            {"key_query_shared_bottleneck": False},
            r"query\.weight is \[8, 8\] in the checkpoint and \[8, 16\]",
        ),
    ],
)
def test_shapes_contrary_to_the_config_are_named(copied: Any, name: str, changes: dict[str, Any], message: str) -> None:
    folder = copied(name)
    _json_in(folder, name).write_text(json.dumps({**CASES[name].config, **changes}))
    with pytest.raises(CheckpointError, match=message):
        hub_config(folder, folder / INDEX)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rembert", {"hidden_size": 0}, r"rembert_config\.json: RemBertConfig\.hidden_size is 0"),
        ("convbert", {"model_size": "large"}, r"hparams\.json: model_size is 'large'; it must be one of 'base'"),
        (
            "convbert",
            {"model_hparam_overrides": {"hidden_size": "wide"}},
            r"hparams\.json holds a value of a wrong kind",
        ),
        ("convbert", {"model_hparam_overrides": 3}, r"hparams\.json holds a value of a wrong kind"),
        ("convbert", {"conv_type": "noconv"}, r"hparams\.json: conv_type is 'noconv'"),
        ("convbert", {"head_ratio": 4}, r"head_ratio is 4; with 4 heads the authors' attention is then 4 wide.*16"),
        (
            "convbert",
            {
                "model_hparam_overrides": {"hidden_size": 16, "num_hidden_layers": 2, "hidden_act": "relu"}
                | {"num_attention_heads": 4}
            },
            r"hidden_act is 'relu'; the Hub's ConvBERT that scores words",
        ),
    ],
)
def test_a_config_that_the_hubs_model_cannot_have_is_named(
    copied: Any, name: str, changes: dict[str, Any], message: str
) -> None:
    folder = copied(name)
    _json_in(folder, name).write_text(json.dumps({**CASES[name].config, **changes}))
    with pytest.raises(ConfigError, match=message):
        hub_config(folder, folder / INDEX)


def test_a_json_of_the_authors_must_say_how_many_words_there_are(copied: Any) -> None:
    folder = copied("mobilebert")
    content = {key: value for key, value in CASES["mobilebert"].config.items() if key != "vocab_size"}
    _json_in(folder, "mobilebert").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"student\.json: vocab_size is missing"):
        hub_config(folder, folder / INDEX)


def test_what_the_authors_graph_does_without_is_made_so_that_it_has_no_effect(built: Any) -> None:
    folder, _ = built("mobilebert-without-bottleneck")
    file = Tf1File(folder / INDEX)
    scope = "mobilebert.embeddings.embedding_transformation"
    assert np.array_equal(file.read(f"{scope}.weight"), np.eye(16, dtype=np.float32))
    assert not file.read(f"{scope}.bias").any()
    assert file.read("cls.predictions.dense.weight").shape == (0, 19)
