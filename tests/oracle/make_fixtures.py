"""Write the oracle's fixtures: what transformers 4.57.6 computes with small models, in PyTorch and TensorFlow.

4.57.6 is the last version with TensorFlow classes. It runs in an environment of its own, which the project never uses:

    python3 -m venv .peers
    .peers/bin/pip install torch==2.13.0 transformers==4.57.6 tensorflow-cpu tf-keras sentencepiece protobuf
    TF_USE_LEGACY_KERAS=1 PYTHONPATH=tests .peers/bin/python tests/oracle/make_fixtures.py

`tests/oracle/fixtures/` then holds, for each case of `families.py`:

- `config.json` and `model.safetensors`, as `save_pretrained` of the family's `checkpoint_head` writes them;
- `heads.safetensors`, the tensors that only another head has, as `<head>/<tensor's name>`;
- `pytorch.npz` (computed in float64) and, where the TensorFlow classes can run the config, `tensorflow.npz` (float32),
  with the arrays `<call>/inputs/<name>`, `<call>/outputs/<name>`, `<call>/loss` and, for PyTorch,
  `<call>/gradients/<parameter>`; a call is a head's name, or a head's name with what is particular about the call
  (`Model+square_mask`);

in `saved-as-bin/` a folder as older versions wrote it, with `pytorch_model.bin`; and what `generation.py` says. A file
that holds what it held before is left as it is, though compressed or packed otherwise.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
import torch
import transformers
from families import FAMILIES, Family
from generation import write_generation
from safetensors.numpy import load_file, save_file

from support.inputs import random_inputs
from support.weights import random_value

FIXTURES = Path(__file__).parent / "fixtures"

SEED = 20


def main() -> None:
    assert transformers.__version__ == "4.57.6", transformers.__version__
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        for family in FAMILIES.values():
            for name, fields in family.cases.items():
                write_case(made / name, family, fields)
        write_bin(made / "saved-as-bin", FAMILIES["mobilebert"], "mobilebert-paper")
        write_generation(made)
        replace(FIXTURES, made)
    for name in FAMILIES:
        size = sum(path.stat().st_size for path in FIXTURES.glob(f"{name}-*/*"))
        print(f"{name}: {size / 1e6:.2f} MB")


def replace(old: Path, new: Path) -> None:
    """Make the old folder hold what the new one holds, touching only files whose content is another."""
    made = {path.relative_to(new) for path in new.rglob("*") if path.is_file()}
    for path in [path for path in old.rglob("*") if path.is_file()]:
        if path.relative_to(old) not in made:
            path.unlink()
            print(f"removed {path.relative_to(old)}")
    for name in sorted(made):
        if not (old / name).exists() or not same_content(old / name, new / name):
            (old / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(new / name, old / name)
            print(f"wrote {name}")


def same_content(one: Path, other: Path) -> bool:
    """Say whether two files of one kind hold the same tensors to the bit, or the same text."""
    if one.suffix == ".npz":
        with np.load(one) as a, np.load(other) as b:
            return same_tensors(dict(a), dict(b))
    if one.suffix == ".bin":
        a, b = (torch.load(path, weights_only=True) for path in (one, other))
        return same_tensors({name: a[name].numpy() for name in a}, {name: b[name].numpy() for name in b})
    return one.read_bytes() == other.read_bytes()


def same_tensors(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Say whether both hold the same names with arrays of the same dtype, shape and bits."""
    return one.keys() == other.keys() and all(
        (one[name].dtype, one[name].shape, one[name].tobytes())
        == (other[name].dtype, other[name].shape, other[name].tobytes())
        for name in one
    )


def write_case(folder: Path, family: Family, fields: dict[str, Any]) -> None:
    """Write one config's checkpoint and what the frameworks compute from it."""
    config = getattr(transformers, f"{family.prefix}Config")(**fields)
    pytorch_model(family, config, family.checkpoint_head).save_pretrained(folder)
    held = {name: value.shape for name, value in load_file(folder / "model.safetensors").items()}
    held |= {name.removeprefix(f"{family.base_prefix}."): shape for name, shape in held.items()}
    own: dict[str, np.ndarray] = {}
    pytorch: dict[str, np.ndarray] = {}
    tensorflow: dict[str, np.ndarray] = {}
    for head in family.heads:
        model = pytorch_model(family, config, head)
        own |= {f"{head}/{name}": value for name, value in sorted(tensors_outside(model, held).items())}
        for call, options in calls(head).items():
            inputs = random_inputs(config, head, SEED, **options)
            pytorch |= {f"{call}/{key}": value for key, value in run_pytorch(family, model, head, inputs).items()}
        if family.runs_in_tensorflow(fields):
            found = run_tensorflow(family, config, head, model)
            tensorflow |= {f"{head}/{key}": value for key, value in found.items()}
    save_file(own, folder / "heads.safetensors", metadata={"format": "pt"})
    np.savez_compressed(folder / "pytorch.npz", **pytorch)
    if tensorflow:
        np.savez_compressed(folder / "tensorflow.npz", **tensorflow)


def write_bin(folder: Path, family: Family, case: str) -> None:
    """Write a classifier's checkpoint as older versions did."""
    config = getattr(transformers, f"{family.prefix}Config")(**family.cases[case])
    pytorch_model(family, config, "ForSequenceClassification").save_pretrained(folder, safe_serialization=False)


def tensors_outside(model: torch.nn.Module, held: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the model's tensors that a checkpoint holding these names and shapes lacks, under any name."""
    tensors = model.state_dict()
    known = {value.data_ptr() for name, value in tensors.items() if held.get(name) == tuple(value.shape)}
    return {name: value.numpy() for name, value in tensors.items() if value.data_ptr() not in known}


def calls(head: str) -> dict[str, dict[str, bool]]:
    """Return the ways in which a head is called: by name, the options of `random_inputs`.

    A row of padding alone is only looked at without a loss. transformers adds the lowest number to a masked score:
    rounding makes that the same as putting it in the score's place, but the gradient is then that of the sum.
    """
    options = ("square_mask", "position_ids", "fully_padded_row") if head == "Model" else ()
    return {head: {}} | {f"{head}+{option}": {option: True} for option in options}


def config_of(config: Any, head: str) -> Any:
    """Return the config for one head: transformers takes the width of the answers' head from `num_labels`."""
    changed = type(config).from_dict(config.to_dict())
    if head == "ForQuestionAnswering":
        changed.num_labels = 2
    return changed


def pytorch_model(family: Family, config: Any, head: str) -> torch.nn.Module:
    """Return transformers' PyTorch model with random weights, in float32."""
    model = getattr(transformers, f"{family.prefix}{head}")(config_of(config, head)).eval()
    # A bare encoder's names lack the prefix, but its weights are those of the models with a head.
    prefix = f"{family.base_prefix}." if head == "Model" else ""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(random_value(prefix + name, tuple(parameter.shape), SEED)))
    return model


def run_pytorch(
    family: Family, model: torch.nn.Module, head: str, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Run the PyTorch class in float64; return inputs, outputs, loss and gradients."""
    model = model.double()
    if family.one_epsilon:
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.eps = model.config.layer_norm_eps
    if head == "ForCausalLM":
        model.loss_function = next_word_loss
    model.zero_grad()
    wanted = {"output_hidden_states": True, "output_attentions": True} if head == "Model" else {}
    outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}, **wanted)
    found = {f"inputs/{name}": value for name, value in inputs.items()}
    for name, value in flat(outputs).items():
        # Scores are written as the probabilities that they stand for, masked by what was added to them.
        scores = family.attentions_are_scores and name.startswith("attentions.")
        found[f"outputs/{name}"] = (value.softmax(-1) if scores else value).detach().numpy()
    if "loss" in outputs:
        outputs.loss.backward()
        found["loss"] = outputs.loss.detach().numpy()
        for name, parameter in model.named_parameters():
            shared = name.startswith(f"{family.base_prefix}.") and not name.endswith(family.shared_gradients)
            # Only a parameter that the head or the config leaves unused has no gradient.
            if parameter.grad is not None and (head == family.all_gradients or not shared):
                found[f"gradients/{name}"] = parameter.grad.numpy()
    model.float()
    return found


def next_word_loss(logits: torch.Tensor, labels: torch.Tensor, **_: Any) -> torch.Tensor:
    """Return the loss that transformers computes, but in the scores' dtype: its own takes them to float32."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def run_tensorflow(family: Family, config: Any, head: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Run the TensorFlow class on the PyTorch model's checkpoint.

    No row is padding alone: the TensorFlow classes subtract 10,000 from a masked score, so such a row would attend as
    if nothing were masked. No row's label is ignored where these classes count it nevertheless.
    """
    inputs = random_inputs(config, head, SEED)
    if head == "ForNextSentencePrediction":
        inputs["next_sentence_label"] = np.abs(inputs.pop("labels")) % 2
    if head == "ForQuestionAnswering":
        inputs["end_positions"] %= inputs["input_ids"].shape[-1]
    if head == "ForSequenceClassification" and config.problem_type is not None:
        del inputs["labels"]  # These classes do not look at the problem's type.
    twin = tensorflow_model(family, config, head, model)
    wanted = {"output_hidden_states": True, "output_attentions": True} if head == "Model" else {}
    outputs = twin(
        {name: tf.constant(value, tf.float32 if value.dtype == float else tf.int32) for name, value in inputs.items()},
        **wanted,
        training=False,
    )
    found = {f"inputs/{name}": value for name, value in inputs.items()}
    if "next_sentence_label" in inputs and head == "ForNextSentencePrediction":
        found["inputs/labels"] = found.pop("inputs/next_sentence_label")
    found |= {f"outputs/{name}": value.numpy() for name, value in flat(outputs).items()}
    if outputs.get("loss") is not None:
        # Where these classes return one loss for each row.
        found["loss"] = np.mean(outputs.loss.numpy())
    return found


def tensorflow_model(family: Family, config: Any, head: str, model: torch.nn.Module) -> Any:
    """Return transformers' TensorFlow model with the PyTorch model's weights."""
    with tempfile.TemporaryDirectory() as folder:
        # Its reader of safetensors files fails on today's versions of safetensors.
        model.save_pretrained(folder, safe_serialization=False)
        twin = getattr(transformers, f"TF{family.prefix}{head}").from_pretrained(folder, from_pt=True)
    for layer in twin.submodules:
        if family.one_epsilon and isinstance(layer, tf_keras.layers.LayerNormalization):
            layer.epsilon = config.layer_norm_eps
        if not config.tie_word_embeddings:
            untie(layer, model)
    return twin


def untie(layer: Any, model: torch.nn.Module) -> None:
    """Give a TensorFlow layer that scores words the output table of its own that the PyTorch model has.

    These layers know no other table than the word embeddings: MobileBERT's is filled with them by the loader, and
    ConvBERT's reads them from the embeddings' layer.
    """
    if type(layer).__name__ == "TFMobileBertLMPredictionHead":
        layer.decoder.assign(model.state_dict()["cls.predictions.decoder.weight"].numpy())
    if type(layer).__name__ == "TFConvBertMaskedLMHead":
        table = tf.constant(model.state_dict()["generator_lm_head.weight"].numpy())
        layer.input_embeddings = SimpleNamespace(weight=table)


def flat(outputs: Any) -> dict[str, Any]:
    """Return the outputs but for the loss and a cache, members of a tuple under `hidden_states.0` and so on."""
    found = {}
    for name, value in outputs.items():
        if name in ("loss", "past_key_values") or value is None:
            continue
        if isinstance(value, tuple):
            found |= {f"{name}.{index}": member for index, member in enumerate(value)}
        else:
            found[name] = value
    return found


if __name__ == "__main__":
    main()
