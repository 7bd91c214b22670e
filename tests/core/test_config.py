"""Configs: rules, labels, JSON in and out, named sizes."""

import copy
import json
import pickle

import pytest

import isobert
from isobert import AutoConfig, MobileBertConfig
from isobert.core.config import ACTIVATIONS
from isobert.errors import CheckpointError, CheckpointNotFoundError, ConfigError, UnknownNameError

ILLEGAL = [
    ("vocab_size", 0),
    ("hidden_size", "512"),
    ("num_hidden_layers", 2.0),
    ("num_attention_heads", True),
    ("intermediate_size", -1),
    ("hidden_act", "gelo"),
    ("hidden_dropout_prob", 1.0),
    ("attention_probs_dropout_prob", -0.1),
    ("max_position_embeddings", None),
    ("type_vocab_size", 0),
    ("layer_norm_eps", 0),
    ("initializer_range", float("nan")),
    ("embedding_size", 0),
    ("trigram_input", 1),
    ("use_bottleneck", "yes"),
    ("intra_bottleneck_size", 0),
    ("use_bottleneck_attention", None),
    ("key_query_shared_bottleneck", 0),
    ("num_feedforward_networks", 0),
    ("normalization_type", "batch_norm"),
    ("classifier_activation", "tanh"),
    ("classifier_dropout", 2),
    ("attention_mask_value", float("inf")),
    ("mask_padding", 1),
    ("pad_token_id", -1),
    ("num_labels", 0),
    ("problem_type", "classification"),
    ("architectures", "MobileBertModel"),
]


@pytest.mark.parametrize(("name", "value"), ILLEGAL)
def test_an_illegal_field_is_named_with_its_value_and_what_is_legal(name, value):
    with pytest.raises(ConfigError, match=rf"MobileBertConfig\.{name} is .*; it must be ") as caught:
        MobileBertConfig(**{name: value})
    assert repr(value) in str(caught.value)


def test_every_field_with_a_rule_is_among_the_illegal_examples():
    ruled = {name for name, spec in MobileBertConfig.__dataclass_fields__.items() if "rule" in spec.metadata}
    checked_together = {"id2label", "label2id"}
    plain_flags = {"tie_word_embeddings", "output_attentions", "output_hidden_states"}
    assert ruled - checked_together - plain_flags == {name for name, _ in ILLEGAL}


def test_a_field_is_checked_when_it_is_set_later():
    config = MobileBertConfig()
    with pytest.raises(ConfigError, match="hidden_act"):
        config.hidden_act = "gelo"
    assert config.hidden_act == "relu"


def test_a_misspelt_field_is_refused():
    config = MobileBertConfig()
    with pytest.raises(ConfigError, match="no field 'hiden_size'"):
        config.hiden_size = 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 3}, "it must divide intra_bottleneck_size, 128"),
        ({"num_attention_heads": 3, "use_bottleneck": False}, "it must divide hidden_size, 512"),
        ({"pad_token_id": 9, "vocab_size": 9}, "below vocab_size, 9"),
    ],
)
def test_fields_that_contradict_each_other_are_named_together(fields, message):
    with pytest.raises(ConfigError, match=message):
        MobileBertConfig(**fields)


def test_a_language_model_head_refuses_embeddings_wider_than_the_stream():
    assert MobileBertConfig(embedding_size=512).extra_output_width() == 0
    with pytest.raises(ConfigError, match="embedding_size is 513"):
        MobileBertConfig(embedding_size=513).extra_output_width()


def test_json_round_trip_keeps_every_field_and_unknown_keys(tmp_path):
    config = MobileBertConfig.from_dict(
        {"hidden_size": 64, "transformers_version": "4.57.6", "finetuning_task": "sst2", "num_labels": 5}
    )
    config.save_pretrained(tmp_path)
    again = MobileBertConfig.from_pretrained(tmp_path)
    assert again == config
    assert again.extra == {"transformers_version": "4.57.6", "finetuning_task": "sst2"}
    assert again.finetuning_task == "sst2"
    assert again.num_labels == 5


def test_the_json_has_the_hubs_keys_and_hides_our_own_until_they_are_set(tmp_path):
    content = json.loads(MobileBertConfig().to_json_string())
    assert content["model_type"] == "mobilebert"
    assert content["true_hidden_size"] == 128
    assert "attention_mask_value" not in content
    assert json.loads(MobileBertConfig(attention_mask_value=-6.0).to_json_string())["attention_mask_value"] == -6.0


def test_a_derived_key_follows_the_fields_and_not_the_file():
    config = MobileBertConfig.from_dict({"true_hidden_size": 7, "intra_bottleneck_size": 32})
    assert config.true_hidden_size == config.to_dict()["true_hidden_size"] == 32


def test_labels_follow_from_whichever_is_given():
    assert MobileBertConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert MobileBertConfig(num_labels=3).label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    assert MobileBertConfig(id2label={"0": "no", "1": "yes"}).label2id == {"no": 0, "yes": 1}
    assert MobileBertConfig(label2id={"yes": 1, "no": 0}).id2label == {0: "no", 1: "yes"}
    config = MobileBertConfig(num_labels=3)
    config.id2label = {0: "a"}
    assert (config.num_labels, config.label2id) == (1, {"a": 0})
    config.num_labels = 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": {0: "a", 2: "b"}}, "count from 0 without gaps"),
        ({"id2label": {"x": "a"}}, "integer ids"),
        ({"id2label": ["a"]}, "integer ids"),
        ({"id2label": {0: "a"}, "num_labels": 2}, "give one of the two"),
        ({"id2label": {0: "a"}, "label2id": {"b": 0}}, "not the reverse"),
    ],
)
def test_labels_that_disagree_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        MobileBertConfig(**fields)


def test_an_override_of_the_labels_replaces_the_files_labels():
    content = MobileBertConfig(id2label={0: "a", 1: "b"}).to_dict()
    assert MobileBertConfig.from_dict(content, num_labels=3).id2label[2] == "LABEL_2"


def test_a_misspelt_override_is_refused_while_a_files_own_keys_survive(tmp_path):
    MobileBertConfig.from_dict({"num_label": 3, "own": 1}).save_pretrained(tmp_path)
    assert MobileBertConfig.from_pretrained(tmp_path, own=2).own == 2
    with pytest.raises(ConfigError, match="no field 'num_lables'"):
        MobileBertConfig.from_pretrained(tmp_path, num_lables=3)
    with pytest.raises(ConfigError, match="no field 'hiden_size'"):
        MobileBertConfig().replace(hiden_size=3)
    with pytest.raises(ConfigError, match="no field 'hiden_size'"):
        MobileBertConfig.from_size("mobilebert-tiny", hiden_size=3)


def test_a_config_is_not_saved_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(CheckpointError, match="taken cannot be made a folder"):
        MobileBertConfig().save_pretrained(tmp_path / "taken")


def test_the_problem_type_follows_from_labels_where_none_is_set():
    assert MobileBertConfig(num_labels=1).problem_type_for(labels_are_floating=False) == "regression"
    assert MobileBertConfig().problem_type_for(labels_are_floating=False) == "single_label_classification"
    assert MobileBertConfig().problem_type_for(labels_are_floating=True) == "multi_label_classification"
    assert MobileBertConfig(problem_type="regression").problem_type_for(labels_are_floating=True) == "regression"


def test_configs_copy_and_pickle():
    config = MobileBertConfig.from_dict({"own": 1, "num_labels": 4})
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
    changed = config.replace(hidden_size=64)
    assert (changed.hidden_size, config.hidden_size, changed.own) == (64, 512, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilebert-uncased", {"num_feedforward_networks": 4, "classifier_activation": False}),
        ("mobilebert-tiny", {"num_feedforward_networks": 2, "use_bottleneck_attention": True}),
        ("ib-bert-large", {"true_hidden_size": 1024, "normalization_type": "layer_norm", "hidden_act": "gelu_new"}),
    ],
)
def test_named_sizes_are_the_papers(name, expected):
    config = AutoConfig.from_size(name)
    assert {field: getattr(config, field) for field in expected} == expected
    assert MobileBertConfig.from_size(name, num_labels=7).num_labels == 7


def test_an_unknown_size_is_answered_with_the_known_ones():
    for call in (AutoConfig.from_size, MobileBertConfig.from_size):
        with pytest.raises(UnknownNameError, match="mobilebert-uncased"):
            call("mobilebert-huge")


def test_auto_config_picks_the_family_and_refuses_strangers(tmp_path):
    MobileBertConfig(hidden_size=64).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, num_labels=3) == MobileBertConfig(hidden_size=64, num_labels=3)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UnknownNameError, match="'gpt2'.*'mobilebert'"):
        AutoConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'gpt2'"):
        MobileBertConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "line 1"), (b"[1]", "holds a list"), (b"\xff\xfe", "UTF-8")],
)
def test_a_damaged_config_file_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        AutoConfig.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_config_says_what_the_folder_holds(tmp_path):
    (tmp_path / "vocab.txt").write_text("")
    with pytest.raises(CheckpointNotFoundError, match=r"no config\.json; it holds: vocab\.txt"):
        AutoConfig.from_pretrained(tmp_path)
    with pytest.raises(CheckpointNotFoundError, match="is a file"):
        AutoConfig.from_pretrained(tmp_path / "vocab.txt")
    with pytest.raises(CheckpointNotFoundError, match="no folder"):
        AutoConfig.from_pretrained(tmp_path / "nowhere" / "at" / "all")


def test_every_activation_is_a_legal_choice():
    for name in ACTIVATIONS:
        assert MobileBertConfig(hidden_act=name).hidden_act == name


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="MobileBertConfiguration"):
        _ = isobert.MobileBertConfiguration


def test_labels_that_are_refused_leave_the_old_ones():
    config = MobileBertConfig(num_labels=3)
    for name, value in (("id2label", {0: "a", 5: "b"}), ("label2id", ["a"]), ("label2id", {"a": 0, "b": 0})):
        with pytest.raises(ConfigError):
            setattr(config, name, value)
        assert config == MobileBertConfig(num_labels=3)


def test_a_checkpoint_s_config_states_the_dtype_that_the_tensors_have():
    config = MobileBertConfig.from_dict({"torch_dtype": "float16"}).for_checkpoint("MobileBertModel", "float32")
    assert config.to_dict()["torch_dtype"] == "float32"
    assert "torch_dtype" not in MobileBertConfig().for_checkpoint("MobileBertModel", "float32").to_dict()
