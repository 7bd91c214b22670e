"""The base of all configs: fields with rules, the Hub's JSON in and out, labels, named sizes."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from ..errors import ConfigError, UnknownNameError
from .fields import Rule, anything, flag, integer, one_of, optional, positive_number, probability, setting, strings
from .hub import read_json, resolve_file, write_text

CONFIG_NAME = "config.json"

# Keys of the Hub's JSON that state the tensors' dtype.
DTYPE_KEYS = ("torch_dtype", "dtype")

# Both frameworks offer exactly these.
ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_fast",
    "gelu_pytorch_tanh",
    "quick_gelu",
    "relu",
    "relu6",
    "silu",
    "swish",
    "mish",
    "sigmoid",
    "tanh",
    "linear",
)

# Three ways to say one thing, kept in agreement.
LABEL_FIELDS = ("num_labels", "id2label", "label2id")

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")

# A label that does not count in a loss.
IGNORED_LABEL = -100


def load_config_dict(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the `config.json` of a folder or a Hub repository.

    Raises:
        CheckpointNotFoundError: there is none.
        CheckpointError: it is not a JSON object.
    """
    path = resolve_file(name_or_path, CONFIG_NAME)
    assert path is not None
    return read_json(path, "config")


@dataclass(kw_only=True, eq=True)
class PretrainedConfig:
    """What every family's config has; where a family's default differs, its class says so.

    A field is checked when it is set; `validate` also checks fields against each other, and runs on construction and
    before a model is built. Keys that are no field are kept in `extra` and written back.

    Attributes:
        vocab_size: number of pieces.
        hidden_size: width of the stream between layers.
        num_hidden_layers: number of layers.
        num_attention_heads: heads of each layer's attention.
        intermediate_size: inner width of each feed-forward network.
        hidden_act: activation of the feed-forward networks.
        hidden_dropout_prob: dropout of the embeddings and of what is added to the stream.
        attention_probs_dropout_prob: dropout of the attention's probabilities.
        max_position_embeddings: the longest sequence.
        type_vocab_size: number of token types (segments).
        layer_norm_eps: epsilon of the layer norms.
        pad_token_id: the id that fills up short rows, and whose embedding is not trained.
        initializer_range: standard deviation of new weights.
        tie_word_embeddings: whether the language-model head shares the input embeddings.
        output_attentions, output_hidden_states: what models return unless a call says otherwise.
        problem_type: the loss of sequence classification; None infers it from the labels.
        num_labels, id2label, label2id: the classes of the classification heads. Giving one of them sets the others.
        architectures: names of the model classes that wrote the checkpoint.
        extra: keys of `config.json` that are no field here.
    """

    model_type: ClassVar[str] = ""
    base_model_prefix: ClassVar[str] = ""
    sizes: ClassVar[dict[str, dict[str, Any]]] = {}
    # Fields written to JSON only when they differ from their default: the Hub's configs do not have them.
    quiet_fields: ClassVar[tuple[str, ...]] = (
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "architectures",
        "tie_word_embeddings",
    )
    # Keys of the Hub's JSON that follow from other fields: written, and ignored when read.
    derived_keys: ClassVar[tuple[str, ...]] = ()

    vocab_size: int = setting(30522, integer(1))
    hidden_size: int = setting(768, integer(1))
    num_hidden_layers: int = setting(12, integer(1))
    num_attention_heads: int = setting(12, integer(1))
    intermediate_size: int = setting(3072, integer(1))
    hidden_act: str = setting("gelu", one_of(*ACTIVATIONS))
    hidden_dropout_prob: float = setting(0.1, probability())
    attention_probs_dropout_prob: float = setting(0.1, probability())
    max_position_embeddings: int = setting(512, integer(1))
    type_vocab_size: int = setting(2, integer(1))
    layer_norm_eps: float = setting(1e-12, positive_number())
    pad_token_id: int | None = setting(0, optional(integer(0)))
    initializer_range: float = setting(0.02, positive_number())
    tie_word_embeddings: bool = setting(True, flag())
    output_attentions: bool = setting(False, flag())
    output_hidden_states: bool = setting(False, flag())
    problem_type: str | None = setting(None, optional(one_of(*PROBLEM_TYPES)))
    architectures: list[str] | None = setting(None, optional(strings()))
    num_labels: int = setting(None, optional(integer(1)))
    id2label: dict[int, str] = setting(None, anything())
    label2id: dict[str, int] = setting(None, anything())
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._settle_labels()
        object.__setattr__(self, "_ready", True)
        self.validate()

    def __setattr__(self, name: str, value: Any) -> None:
        rules = _rules(type(self))
        if name in rules:
            rules[name].check(type(self).__name__, name, value)
        elif name not in type(self).__dataclass_fields__:
            raise ConfigError(
                f"{type(self).__name__} has no field {name!r} (a key of your own goes into .extra); its fields are "
                f"{', '.join(type(self).__dataclass_fields__)}."
            )
        if name not in LABEL_FIELDS or not getattr(self, "_ready", False):
            object.__setattr__(self, name, value)
            return
        # The field just set decides, so the two others are made anew from it; if it is not legal, all stay.
        before = {field_name: getattr(self, field_name) for field_name in LABEL_FIELDS}
        try:
            self.__dict__.update({**dict.fromkeys(LABEL_FIELDS), name: value})
            self._settle_labels()
        except ConfigError:
            self.__dict__.update(before)
            raise

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that are no attribute: keys kept from a config.json.
        if not name.startswith("_") and name in self.__dict__.get("extra", {}):
            return self.extra[name]
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    def validate(self) -> None:
        """Check every field, and fields against each other.

        Raises:
            ConfigError: naming the field, its value and what is legal.
        """
        for name, rule in _rules(type(self)).items():
            rule.check(type(self).__name__, name, getattr(self, name))
        if self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            raise ConfigError(
                f"{type(self).__name__}.pad_token_id is {self.pad_token_id}; "
                f"it must be below vocab_size, {self.vocab_size}."
            )

    @property
    def head_dropout_prob(self) -> float:
        """Dropout before a classifier; a family may have a field of its own for it."""
        return self.hidden_dropout_prob

    def problem_type_for(self, labels_are_floating: bool) -> str:
        """Return `problem_type`; where it is None, what the number of labels and their dtype suggest."""
        if self.problem_type is not None:
            return self.problem_type
        if self.num_labels == 1:
            return "regression"
        return "multi_label_classification" if labels_are_floating else "single_label_classification"

    def _settle_labels(self) -> None:
        """Make `num_labels`, `id2label` and `label2id` agree, from whichever of them were given."""
        id2label, label2id = self.id2label, self.label2id
        if id2label is not None:
            id2label = self._integer_keys(id2label)
        elif label2id is not None:
            if not isinstance(label2id, dict):
                raise ConfigError(f"{type(self).__name__}.label2id is {label2id!r}; it must map labels to integer ids.")
            id2label = {index: label for label, index in label2id.items()}
        else:
            id2label = {index: f"LABEL_{index}" for index in range(2 if self.num_labels is None else self.num_labels)}
        if sorted(id2label) != list(range(len(id2label))):
            raise ConfigError(
                f"{type(self).__name__}.id2label has the ids {sorted(id2label)}; they must count from 0 without gaps."
            )
        if self.num_labels not in (None, len(id2label)):
            raise ConfigError(
                f"{type(self).__name__}.num_labels is {self.num_labels}, but id2label names {len(id2label)} labels; "
                "give one of the two, or make them agree."
            )
        expected = {label: index for index, label in id2label.items()}
        if label2id is not None and dict(label2id) != expected:
            raise ConfigError(f"{type(self).__name__}.label2id is not the reverse of id2label: {label2id!r}.")
        object.__setattr__(self, "id2label", dict(sorted(id2label.items())))
        object.__setattr__(self, "label2id", {label: index for index, label in self.id2label.items()})
        object.__setattr__(self, "num_labels", len(id2label))

    def _integer_keys(self, id2label: Any) -> dict[int, str]:
        """JSON has string keys only; ids are integers."""
        try:
            return {int(index): str(label) for index, label in id2label.items()}
        except (AttributeError, TypeError, ValueError):
            raise ConfigError(
                f"{type(self).__name__}.id2label is {id2label!r}; it must map integer ids to labels."
            ) from None

    @classmethod
    def from_dict(cls, content: dict[str, Any], **overrides: Any) -> Self:
        """Make a config from the keys of a `config.json`; `overrides` replace fields, or other keys that it has.

        Raises:
            ConfigError: a field is not legal, an override is of no field, or `model_type` is another family's.
        """
        fields = cls.__dataclass_fields__
        # A file's unknown keys are another program's business; one that is given here is misspelt.
        strange = [name for name in overrides if name not in fields and name not in content and name not in DTYPE_KEYS]
        if strange:
            raise ConfigError(f"{cls.__name__} has no field {strange[0]!r}; its fields are {', '.join(fields)}.")
        given = copy.deepcopy(content)
        model_type = given.pop("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ConfigError(f"This config has model_type {model_type!r}; {cls.__name__} is for {cls.model_type!r}.")
        given = {key: value for key, value in given.items() if key not in cls.derived_keys}
        if set(LABEL_FIELDS) & set(overrides):
            # Labels replaced as a whole: what the file says about them no longer counts.
            given = {key: value for key, value in given.items() if key not in LABEL_FIELDS}
        given.update(overrides)
        known = {key: value for key, value in given.items() if key in fields and key != "extra"}
        unknown = {key: value for key, value in given.items() if key not in fields}
        return cls(**known, extra={**given.get("extra", {}), **unknown})

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of the Hub's `config.json`, ready for JSON."""
        content: dict[str, Any] = {"model_type": self.model_type, **copy.deepcopy(self.extra)}
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if spec.name in ("extra", *LABEL_FIELDS):
                continue
            if spec.name in self.quiet_fields and value == spec.default:
                continue
            content[spec.name] = copy.deepcopy(value)
        if self.id2label != {0: "LABEL_0", 1: "LABEL_1"}:
            content["id2label"] = {str(index): label for index, label in self.id2label.items()}
            content["label2id"] = dict(self.label2id)
        for key in self.derived_keys:
            content[key] = getattr(self, key)
        return content

    def to_json_string(self) -> str:
        """Return the text of `config.json`."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Open the `config.json` of a folder or a Hub repository; `overrides` replace fields of it.

        Raises:
            CheckpointNotFoundError: there is no such file.
            CheckpointError: it is not JSON.
            ConfigError: a field is not legal, or it is another family's config.
        """
        return cls.from_dict(load_config_dict(name_or_path), **overrides)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write `config.json` into `folder`, which is made if need be. An old one stays until the new is complete."""
        self.validate()
        write_text(Path(folder) / CONFIG_NAME, self.to_json_string())

    @classmethod
    def from_size(cls, name: str, **overrides: Any) -> Self:
        """Return the config of a named size; `overrides` replace fields of it.

        Raises:
            UnknownNameError: this family has no size of that name.
        """
        if name not in cls.sizes:
            raise UnknownNameError(f"{cls.__name__} has no size {name!r}; it has {', '.join(cls.sizes)}.")
        return cls.from_dict(cls.sizes[name], **overrides)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed."""
        return type(self).from_dict(self.to_dict(), **changes)

    def for_checkpoint(self, architecture: str, dtype: str) -> Self:
        """Return the config to save with tensors of a `dtype` ("float32"), written by the model class `architecture`.

        A Hub config may state its checkpoint's dtype (`torch_dtype`, lately `dtype`), by which other readers cast.
        """
        stated = {key: dtype for key in DTYPE_KEYS if isinstance(self.extra.get(key), str)}
        return self.replace(architectures=[architecture], **stated)


def _rules(config_class: type[PretrainedConfig]) -> dict[str, Rule]:
    """Return the rule of each field of a config class that has one."""
    fields = config_class.__dataclass_fields__
    return {name: spec.metadata["rule"] for name, spec in fields.items() if "rule" in spec.metadata}
