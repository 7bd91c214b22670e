"""The authors' own JSON configs of TensorFlow 1 checkpoints, told as the Hub's.

A key that a JSON lacks has the default of the authors' code, which is often another than the Hub's: google-research
`mobilebert/modeling.py` (`BertConfig`); yitu-opensource/ConvBert `configure_pretraining.py`, `util/training_utils.py`
and `model/modeling.py`. RemBERT's code is not public: its JSON has the Hub's keys, and here the Hub's defaults too,
which are the published model's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...core.auto import config_class
from ...core.config import PretrainedConfig
from ...core.hub import read_json
from ...core.registry import FAMILIES
from ...errors import CheckpointError, CheckpointNotFoundError, ConfigError
from ..expected import expected_tensors
from ..matching import LoadPlan, match_tensors
from ..names import family_names
from .tf1 import Tf1File

# What BERT's code, which the others took over, assumes.
_BERT: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "initializer_range": 0.02,
}

_MOBILEBERT: dict[str, Any] = {
    **_BERT,
    "type_vocab_size": 16,
    "embedding_size": None,
    "trigram_input": False,
    "use_bottleneck": False,
    "intra_bottleneck_size": None,
    "use_bottleneck_attention": False,
    "key_query_shared_bottleneck": False,
    "num_feedforward_networks": 1,
    "normalization_type": "layer_norm",
    "classifier_activation": True,
}

_CONVBERT_SHAPE: dict[str, Any] = {
    "vocab_size": 30522,
    "embedding_size": None,
    "conv_kernel_size": 9,
    "linear_groups": 2,
    "head_ratio": 2,
    "conv_type": "sdconv",
}

# What `model_size` sets: the width, how wide a head is, and what replaces the above.
_CONVBERT_SIZES: dict[str, tuple[int, int, dict[str, Any]]] = {
    "base": (768, 64, {"linear_groups": 1}),
    "medium-small": (384, 48, {"embedding_size": 128}),
    "small": (256, 64, {"embedding_size": 128, "linear_groups": 1}),
}

# The keys by which a JSON is known for a config: BERT's, and those of ConvBERT's settings of a training.
_OF_A_MODEL = {"hidden_size", "num_hidden_layers"}
_OF_A_TRAINING = {"model_size", "model_hparam_overrides", *_CONVBERT_SHAPE} - {"vocab_size"}


def hub_config(folder: Path, index: Path) -> dict[str, Any]:
    """Return the content of the Hub's `config.json` for a checkpoint, from the authors' JSON in its folder.

    `architectures` names the model whose tensors are all there and leave the fewest over; the number of labels is that
    of the classifier, if there is one.

    Args:
        folder: where the JSON lies, under any name.
        index: the checkpoint's index.

    Raises:
        CheckpointNotFoundError: there is no JSON file.
        CheckpointError: none of them is a config, several are, or it is of another model than the checkpoint.
        ConfigError: a value in it is not legal, or the Hub's models cannot do what it asks for.
    """
    file = Tf1File(index)
    try:
        path, content = _json_of(folder, file.family)
        try:
            told = READERS[file.family](content)
            if "classifier.weight" in file.names():
                told["num_labels"] = file.shape("classifier.weight")[0]
            config = config_class(file.family).from_dict(told)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        except (ArithmeticError, AttributeError, TypeError) as error:
            raise ConfigError(f"{path} holds a value of a wrong kind ({error}). Correct it.") from error
        head = _head(config, file, path)
        if file.family == "convbert" and head == "ForMaskedLM" and config.hidden_act != "gelu":
            raise ConfigError(
                f"{path}: hidden_act is {config.hidden_act!r}; the Hub's ConvBERT that scores words has 'gelu' there "
                "whatever its encoder has."
            )
        config.architectures = [FAMILIES[file.family].model_name(head, "pt")]
        return config.to_dict()
    finally:
        file.close()


def _json_of(folder: Path, family: str) -> tuple[Path, dict[str, Any]]:
    """Return the one JSON of a folder that is a config of the authors', and its content."""
    paths = sorted(folder.glob("*.json"))
    found: dict[Path, dict[str, Any]] = {}
    broken: CheckpointError | None = None
    for path in paths:
        try:
            content = read_json(path, "config")
        except CheckpointError as error:
            broken = error
            continue
        if content.keys() >= _OF_A_MODEL or (family == "convbert" and content.keys() & _OF_A_TRAINING):
            found[path] = content
    if len(found) == 1:
        return found.popitem()
    if found:
        raise CheckpointError(
            f"{folder} holds several configs: {', '.join(path.name for path in found)}. Leave the checkpoint's alone."
        )
    if broken is not None and len(paths) == 1:
        raise broken
    cure = "Put the JSON there with which the checkpoint was trained, or a config.json of the Hub"
    if family == "convbert":
        cure += ', or a JSON such as {"model_size": "base"}'
    if paths:
        raise CheckpointError(
            f"{folder}: {', '.join(path.name for path in paths)} is no config of a model, since it lacks "
            f"{' and '.join(sorted(_OF_A_MODEL))}. {cure}."
        )
    raise CheckpointNotFoundError(f"{folder} holds a TensorFlow checkpoint and no JSON with its config. {cure}.")


def _mobilebert(content: Mapping[str, Any]) -> dict[str, Any]:
    told = {**_MOBILEBERT, **_with_words(content)}
    for width in ("embedding_size", "intra_bottleneck_size"):
        if told[width] is None:
            told[width] = told["hidden_size"]
    # The authors' gelu is its approximation by tanh, which the Hub gives another name.
    told["hidden_act"] = {"gelu": "gelu_new"}.get(_activation(told), _activation(told))
    if told["use_bottleneck_attention"]:
        # It leaves the other no effect, and the Hub's model would have weights for it that the authors' does not.
        told["key_query_shared_bottleneck"] = False
    return told


def _rembert(content: Mapping[str, Any]) -> dict[str, Any]:
    return _with_words(content)


def _convbert(content: Mapping[str, Any]) -> dict[str, Any]:
    """Tell the config of a ConvBERT from that of its encoder, or from the settings of its training."""
    if content.keys() >= _OF_A_MODEL:
        told = {**_BERT, **_CONVBERT_SHAPE, **_with_words(content)}
    else:
        size = content.get("model_size", "medium-small")
        if size not in _CONVBERT_SIZES:
            raise ConfigError(f"model_size is {size!r}; it must be one of {', '.join(map(repr, _CONVBERT_SIZES))}.")
        width, head, replaced = _CONVBERT_SIZES[size]
        given = {key: value for key, value in content.items() if key in _CONVBERT_SHAPE}
        overrides = content.get("model_hparam_overrides", {})
        width = overrides.get("hidden_size", width)
        derived = {"hidden_size": width, "num_attention_heads": max(1, width // head), "intermediate_size": 4 * width}
        told = {**_BERT, **_CONVBERT_SHAPE, **replaced, **given, **derived, **overrides}
    told = {"type_vocab_size": 2, "pad_token_id": 0, **told}
    if told["embedding_size"] is None:
        told["embedding_size"] = told["hidden_size"]
    told["hidden_act"] = _activation(told)
    told["num_groups"] = told.pop("linear_groups")
    kind = told.pop("conv_type")
    if kind != "sdconv":
        raise ConfigError(f"conv_type is {kind!r}; the Hub's ConvBERT has 'sdconv' alone.")
    hidden, heads, ratio = told["hidden_size"], told["num_attention_heads"], told["head_ratio"]
    attention = max(heads // ratio, 1) * (hidden // heads)
    if 2 * attention != hidden:
        raise ConfigError(
            f"head_ratio is {ratio}; with {heads} heads the authors' attention is then {attention} wide, and the Hub's "
            f"is always half of hidden_size, {hidden}."
        )
    return told


def _with_words(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON's content, which must say how many words there are."""
    if "vocab_size" not in content:
        raise ConfigError("vocab_size is missing, and has no default.")
    return dict(content)


def _activation(told: Mapping[str, Any]) -> str:
    """Return the name of an activation; the authors' code takes any case, and nothing for the identity."""
    return str(told["hidden_act"] or "linear").lower()


READERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "mobilebert": _mobilebert,
    "rembert": _rembert,
    "convbert": _convbert,
}
"""By family, what tells the content of the authors' JSON in the Hub's keys."""


def _head(config: PretrainedConfig, file: Tf1File, path: Path) -> str:
    """Return the head whose tensors the checkpoint holds, after holding the encoder to the config."""
    plans = {head: plan for head in FAMILIES[file.family].heads if (plan := _plan(config, head, file)) is not None}
    _check_encoder(config, plans["Model"], file, path)
    complete = [head for head, plan in plans.items() if not plan.report.missing and not plan.report.mismatched]
    return min(complete, key=lambda head: len(plans[head].report.unexpected), default="Model")


def _plan(config: PretrainedConfig, head: str, file: Tf1File) -> LoadPlan | None:
    """Match one head; None where the config does not allow it."""
    try:
        shapes = expected_tensors(config, head)
    except ConfigError:
        return None
    return match_tensors(shapes, file, family_names(file.family), ignore_mismatched_sizes=True)


def _check_encoder(config: PretrainedConfig, plan: LoadPlan, file: Tf1File, path: Path) -> None:
    """Raise unless the encoder's tensors are those of the config."""
    prefix = f"{config.base_model_prefix}."

    def of_encoder(names: Iterable[str]) -> list[str]:
        return [name for name in names if name.removeprefix(prefix).startswith(("embeddings", "encoder"))]

    report = plan.report
    contrary = [
        *map(str, report.mismatched),
        *(f"{name} is in the config's model alone" for name in of_encoder(report.missing)),
        *(f"{file.foreign_names[name]} is in the checkpoint alone" for name in of_encoder(report.unexpected)),
    ]
    if contrary:
        more = f" and {len(contrary) - 3} more" if len(contrary) > 3 else ""
        raise CheckpointError(
            f"{path} is the config of another model than {file.path.name}: {'; '.join(contrary[:3])}{more}. "
            "Put the JSON there with which the checkpoint was trained."
        )
