"""Write the fixtures of the form `tf_model.h5`: files that transformers 4.57.6 saves from its TensorFlow classes.

It runs where `make_fixtures.py` does:

    TF_USE_LEGACY_KERAS=1 PYTHONPATH=tests .peers/bin/python tests/oracle/make_h5.py

`tests/oracle/transformers-h5/` then holds, for each case and head, what `save_pretrained` wrote (an h5 file packed with
xz: it is mostly zeros) and `outputs.npz`, what the saved model computes in float32: the arrays `inputs/<name>` and
`outputs/<name>`.
"""

from __future__ import annotations

import lzma
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
import transformers
from families import CONVBERT_CASES, FAMILIES, MOBILEBERT_CASES, REMBERT_CASES, Family, Fields
from make_fixtures import SEED, config_of, flat, pytorch_model, replace, tensorflow_model

from support.inputs import random_inputs

FOLDER = Path(__file__).parent / "transformers-h5"


@dataclass(frozen=True)
class Case:
    """One config and how its models come to be saved.

    Attributes:
        family: its name.
        fields: the config's.
        heads: the heads that are saved; none given, all of the family.
        from_pytorch: whether what is saved is a model just read from a PyTorch checkpoint, and not the first of its
            class in the process, so that Keras numbers its name.
        shard_size: above which a checkpoint is saved in several files.
    """

    family: str
    fields: Fields
    heads: tuple[str, ...] = ()
    from_pytorch: bool = False
    shard_size: str = "10GB"


ONE_LAYER: Fields = {"num_hidden_layers": 1}
MOBILEBERT = MOBILEBERT_CASES["mobilebert-paper"] | ONE_LAYER
CONVBERT = CONVBERT_CASES["convbert-base"] | ONE_LAYER
REMBERT = REMBERT_CASES["rembert-paper"] | ONE_LAYER

CASES: dict[str, Case] = {
    "mobilebert": Case("mobilebert", MOBILEBERT),
    "mobilebert-layer-norm-no-bottleneck": Case(
        "mobilebert",
        MOBILEBERT_CASES["mobilebert-no-bottleneck"] | {"classifier_activation": False},
        ("Model", "ForPreTraining", "ForTokenClassification"),
    ),
    "mobilebert-untied": Case("mobilebert", MOBILEBERT_CASES["mobilebert-bottlenecked-attention"], ("ForPreTraining",)),
    "mobilebert-from-pytorch": Case("mobilebert", MOBILEBERT, ("ForMaskedLM",), from_pytorch=True),
    "mobilebert-shards": Case("mobilebert", MOBILEBERT, ("ForPreTraining",), shard_size="6KB"),
    "convbert": Case("convbert", CONVBERT),
    "convbert-grouped": Case(
        "convbert",
        CONVBERT_CASES["convbert-untied"] | {"tie_word_embeddings": True},
        ("Model", "ForMaskedLM", "ForMultipleChoice"),
    ),
    "convbert-from-pytorch": Case("convbert", CONVBERT, ("ForMaskedLM",), from_pytorch=True),
    "convbert-shards": Case("convbert", CONVBERT, ("ForMaskedLM",), shard_size="10KB"),
    "rembert": Case("rembert", REMBERT),
    "rembert-decoder-with-cross-attention": Case(
        "rembert",
        REMBERT_CASES["rembert-decoder-with-cross-attention"] | {"num_hidden_layers": 2},
        ("Model", "ForCausalLM", "ForTokenClassification"),
    ),
    "rembert-from-pytorch": Case("rembert", REMBERT, ("ForSequenceClassification",), from_pytorch=True),
    "rembert-shards": Case("rembert", REMBERT, ("ForCausalLM",), shard_size="4KB"),
}


def main() -> None:
    assert transformers.__version__ == "4.57.6", transformers.__version__
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        for name, case in CASES.items():
            for head in case.heads or FAMILIES[case.family].heads:
                write_case(made / name / head, FAMILIES[case.family], case, head)
        FOLDER.mkdir(exist_ok=True)
        replace(FOLDER, made)
    print(f"{sum(path.stat().st_size for path in FOLDER.rglob('*') if path.is_file()) / 1e6:.2f} MB")


def write_case(folder: Path, family: Family, case: Case, head: str) -> None:
    """Save one model, and what it computes."""
    config = getattr(transformers, f"{family.prefix}Config")(**case.fields)
    model = saved_model(family, case, config_of(config, head), head)
    inputs = random_inputs(config, head, SEED, labels=False)
    outputs = model(as_tensors(inputs), training=False)
    model.save_pretrained(folder, max_shard_size=case.shard_size)
    for path in folder.glob("*.h5"):
        (folder / f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes()))
        path.unlink()
    found = {f"inputs/{name}": value for name, value in inputs.items()}
    found |= {f"outputs/{name}": value.numpy() for name, value in flat(outputs).items()}
    np.savez_compressed(folder / "outputs.npz", **found)


def saved_model(family: Family, case: Case, config: Any, head: str) -> Any:
    """Return a TensorFlow model with random weights: one read from PyTorch, or one made anew with the same weights."""
    tf_keras.backend.clear_session()
    if case.from_pytorch:
        getattr(transformers, f"TF{family.prefix}{head}")(config)
    read = tensorflow_model(family, config, head, pytorch_model(family, config, head))
    if case.from_pytorch:
        return read
    weights = read.get_weights()
    names = [own_name(weight) for weight in read.weights]
    tf_keras.backend.clear_session()
    made = getattr(transformers, f"TF{family.prefix}{head}")(config)
    made(as_tensors(random_inputs(config, head, SEED, labels=False)), training=False)
    assert [own_name(weight) for weight in made.weights] == names
    made.set_weights(weights)
    return made


def own_name(weight: Any) -> str:
    """Return a weight's name without its model's."""
    return str(weight.name).partition("/")[2]


def as_tensors(inputs: dict[str, np.ndarray]) -> dict[str, tf.Tensor]:
    """Return inputs in the dtypes that the TensorFlow classes take."""
    return {name: tf.constant(it, tf.float32 if it.dtype == float else tf.int32) for name, it in inputs.items()}


if __name__ == "__main__":
    main()
