"""Open checkpoints with transformers 4.57.6, run them, and save them again; in the peer's environment.

    TF_USE_LEGACY_KERAS=1 .peers/bin/python tests/peers/peer.py FOLDER

FOLDER holds a folder for each case, with `inputs.npz` and a checkpoint in each form: `safetensors`, `torch-bin` and,
where transformers has a TensorFlow class, `transformers-h5`. For each form two files are added to the case: the outputs
as `<form>.npz`, and what was missing or left over as `<form>.json`. What TensorFlow opened is saved again, in one file
under `saved` and in several under `saved-in-shards`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
import torch
import transformers


def main(folder: Path) -> None:
    assert transformers.__version__ == "4.57.6", transformers.__version__
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        with np.load(case / "inputs.npz") as file:
            inputs = dict(file)
        for form in ("safetensors", "torch-bin", "transformers-h5"):
            if (case / form).is_dir():
                run = run_tensorflow if form == "transformers-h5" else run_pytorch
                outputs, info = run(case, form, inputs)
                np.savez(case / f"{form}.npz", **outputs)
                (case / f"{form}.json").write_text(json.dumps({name: sorted(map(str, info[name])) for name in info}))


def run_pytorch(case: Path, form: str, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what the PyTorch class computes, and what was missing or left over."""
    model, info = model_class(case / form).from_pretrained(case / form, output_loading_info=True)
    tensors = {
        name: torch.from_numpy(it.astype(np.float32) if it.dtype == float else it) for name, it in inputs.items()
    }
    with torch.no_grad():
        outputs = model.eval()(**tensors)
    return {name: value.numpy() for name, value in outputs.items() if name != "past_key_values"}, info


def run_tensorflow(
    case: Path, form: str, inputs: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what the TensorFlow class computes, and what was missing or left over; save the model again."""
    # Keras numbers the dropouts of a process, and a dropout before a classifier is a layer that is looked for by name.
    tf_keras.backend.clear_session()
    model, info = model_class(case / form, "TF").from_pretrained(case / form, output_loading_info=True)
    tensors = {name: tf.constant(it, tf.float32 if it.dtype == float else tf.int32) for name, it in inputs.items()}
    outputs = model(tensors, training=False)
    model.save_pretrained(case / "saved")
    model.save_pretrained(case / "saved-in-shards", max_shard_size="10KB")
    return {name: value.numpy() for name, value in outputs.items() if name != "past_key_values"}, info


def model_class(folder: Path, prefix: str = "") -> Any:
    """Return the class that a checkpoint's config names."""
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, f"{prefix}{architecture}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
