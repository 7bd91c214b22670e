"""Write the oracle's fixtures: what transformers 4.57.6 computes with small MobileBERTs, in PyTorch and TensorFlow.

4.57.6 is the last version with TensorFlow classes. It runs in an environment of its own, which the project never uses:

    python3 -m venv .peers
    .peers/bin/pip install torch==2.13.0 transformers==4.57.6 tensorflow-cpu tf-keras sentencepiece protobuf
    TF_USE_LEGACY_KERAS=1 PYTHONPATH=tests .peers/bin/python tests/oracle/make_fixtures.py

`tests/oracle/fixtures/` then holds, for each config of `CASES`:

- `config.json` and `model.safetensors`, as `MobileBertForPreTraining.save_pretrained` writes them;
- `heads.safetensors`, the tensors that only another head has, as `<head>/<tensor's name>`;
- `pytorch.npz` (computed in float64) and `tensorflow.npz` (float32), with the arrays
  `<call>/inputs/<name>`, `<call>/outputs/<name>`, `<call>/loss` and, for PyTorch, `<call>/gradients/<parameter>`;
  a call is a head's name, or a head's name with what is particular about the call (`Model+square_mask`);

and in `saved-as-bin/` a folder as older versions wrote it, with `pytorch_model.bin`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
import torch
import transformers
from safetensors.numpy import load_file, save_file

from support.inputs import random_inputs
from support.weights import random_value

FIXTURES = Path(__file__).parent / "fixtures"

SMALL = {
    "vocab_size": 31,
    "hidden_size": 12,
    "embedding_size": 5,
    "intra_bottleneck_size": 8,
    "intermediate_size": 9,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 11,
    "num_labels": 3,
}

# What transformers can run: it has no "manual_layer_norm", and fails where queries and keys see the full stream.
CASES: dict[str, dict[str, Any]] = {
    "mobilebert-paper": {**SMALL, "num_feedforward_networks": 3},
    "mobilebert-inverted-layer-norm": {
        **SMALL,
        "normalization_type": "layer_norm",
        "layer_norm_eps": 1e-3,
        "hidden_act": "gelu_new",
        "intra_bottleneck_size": 16,
        "num_attention_heads": 4,
        "num_feedforward_networks": 1,
        "classifier_activation": False,
        "pad_token_id": 3,
    },
    "mobilebert-bottlenecked-attention": {
        **SMALL,
        "hidden_act": "silu",
        "use_bottleneck_attention": True,
        "key_query_shared_bottleneck": False,
        "num_feedforward_networks": 2,
        "trigram_input": False,
        "tie_word_embeddings": False,
        "problem_type": "regression",
    },
    "mobilebert-no-bottleneck": {
        **SMALL,
        "hidden_act": "gelu",
        "use_bottleneck": False,
        "trigram_input": False,
        "embedding_size": 12,
        "num_feedforward_networks": 1,
        "normalization_type": "layer_norm",
        "problem_type": "multi_label_classification",
    },
}

HEADS = (
    "Model",
    "ForPreTraining",
    "ForMaskedLM",
    "ForNextSentencePrediction",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForTokenClassification",
    "ForQuestionAnswering",
)

# Gradients of every parameter are kept for one head; the others show their own parameters and these.
SHARED_GRADIENTS = ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight")

SEED = 20


def main() -> None:
    assert transformers.__version__ == "4.57.6", transformers.__version__
    shutil.rmtree(FIXTURES, ignore_errors=True)
    for name, fields in CASES.items():
        write_case(FIXTURES / name, transformers.MobileBertConfig(**fields))
    model = pytorch_model(transformers.MobileBertConfig(**CASES["mobilebert-paper"]), "ForSequenceClassification")
    model.save_pretrained(FIXTURES / "saved-as-bin", safe_serialization=False)
    print(f"{sum(path.stat().st_size for path in FIXTURES.rglob('*') if path.is_file()) / 1e6:.2f} MB in {FIXTURES}")


def write_case(folder: Path, config: Any) -> None:
    """Write one config's checkpoint and what both frameworks compute from it."""
    pytorch_model(config, "ForPreTraining").save_pretrained(folder)
    held = load_file(folder / "model.safetensors")
    own: dict[str, np.ndarray] = {}
    pytorch: dict[str, np.ndarray] = {}
    tensorflow: dict[str, np.ndarray] = {}
    for head in HEADS:
        model = pytorch_model(config, head)
        names = set(model.state_dict()) - set(held) - {name.removeprefix("mobilebert.") for name in held}
        own |= {f"{head}/{name}": model.state_dict()[name].numpy() for name in sorted(names) if "decoder" not in name}
        for call, options in calls(head).items():
            inputs = random_inputs(config, head, SEED, **options)
            pytorch |= {f"{call}/{key}": value for key, value in run_pytorch(model, head, inputs).items()}
        tensorflow |= {f"{head}/{key}": value for key, value in run_tensorflow(config, head, model).items()}
    save_file(own, folder / "heads.safetensors", metadata={"format": "pt"})
    np.savez_compressed(folder / "pytorch.npz", **pytorch)
    np.savez_compressed(folder / "tensorflow.npz", **tensorflow)


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


def pytorch_model(config: Any, head: str) -> torch.nn.Module:
    """Return transformers' PyTorch model with random weights, in float32."""
    model = getattr(transformers, f"MobileBert{head}")(config_of(config, head)).eval()
    # A bare encoder's names lack the prefix, but its weights are those of the models with a head.
    prefix = "mobilebert." if head == "Model" else ""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(random_value(prefix + name, tuple(parameter.shape), SEED)))
    return model


def run_pytorch(model: torch.nn.Module, head: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    model = model.double()
    for module in model.modules():
        # Some of transformers' layer norms are made without `layer_norm_eps` (those of the embeddings and of the
        # layers' outputs) and so run with torch's default; the authors' code has one epsilon for all.
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = model.config.layer_norm_eps
    model.zero_grad()
    wanted = {"output_hidden_states": True, "output_attentions": True} if head == "Model" else {}
    outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}, **wanted)
    found = {f"inputs/{name}": value for name, value in inputs.items()}
    found |= {f"outputs/{name}": value.detach().numpy() for name, value in flat(outputs).items()}
    if "loss" in outputs:
        outputs.loss.backward()
        found["loss"] = outputs.loss.detach().numpy()
        for name, parameter in model.named_parameters():
            shared = name.startswith("mobilebert.") and not name.endswith(SHARED_GRADIENTS)
            # Only a parameter that the config leaves unused has no gradient.
            if parameter.grad is not None and (head == "ForPreTraining" or not shared):
                found[f"gradients/{name}"] = parameter.grad.numpy()
    model.float()
    return found


def run_tensorflow(config: Any, head: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
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
    with tempfile.TemporaryDirectory() as folder:
        # Its reader of safetensors files fails on today's versions of safetensors.
        model.save_pretrained(folder, safe_serialization=False)
        twin = getattr(transformers, f"TFMobileBert{head}").from_pretrained(folder, from_pt=True)
    for layer in twin.submodules:
        if isinstance(layer, tf_keras.layers.LayerNormalization):
            layer.epsilon = config.layer_norm_eps
    if not config.tie_word_embeddings and head in ("ForPreTraining", "ForMaskedLM"):
        # The loader of these classes always fills the output table with the word embeddings.
        for predictions in twin.submodules:
            if type(predictions).__name__ == "TFMobileBertLMPredictionHead":
                predictions.decoder.assign(model.state_dict()["cls.predictions.decoder.weight"].numpy())
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


def flat(outputs: Any) -> dict[str, Any]:
    """Return the outputs but for the loss, members of a tuple under `hidden_states.0` and so on."""
    found = {}
    for name, value in outputs.items():
        if isinstance(value, tuple):
            found |= {f"{name}.{index}": member for index, member in enumerate(value)}
        elif name != "loss" and value is not None:
            found[name] = value
    return found


if __name__ == "__main__":
    main()
