"""Opens a BERT checkpoint as a SqueezeBERT, to give a SqueezeBERT a pretrained start.

    python examples/bert_as_squeezebert.py BERT_FOLDER NEW_FOLDER

A SqueezeBERT whose convolutions have one group each computes exactly what BERT computes (Iandola et al., 2020,
https://arxiv.org/abs/2006.11316, section 3): its tensors are BERT's under other names, and the matrix `[out, in]` of a
dense layer is the kernel `[out, in, 1]` of a convolution one position wide. The tokenizer is BERT's own.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import isobert
from isobert.conversion.checkpoint import LazyTensor, open_checkpoint, write_checkpoint
from isobert.core.hub import read_json

NAMES = (
    # (pattern, replacement), applied in order.
    (r"^bert\.", ""),
    (r"encoder\.layer\.", "encoder.layers."),
    (r"attention\.self\.", "attention."),
    (r"attention\.output\.dense", "post_attention.conv1d"),
    (r"attention\.output\.LayerNorm", "post_attention.layernorm"),
    (r"\.(intermediate|output)\.dense", r".\1.conv1d"),
    (r"\.output\.LayerNorm", ".output.layernorm"),
)
GROUPS = ("q", "k", "v", "post_attention", "intermediate", "output")


def squeezebert_name(name: str) -> str:
    """Return SqueezeBERT's name of one of BERT's tensors."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def main(source: Path, target: Path) -> None:
    """Write the encoder of a BERT checkpoint as that of a SqueezeBERT, with its tokenizer."""
    bert = read_json(source / "config.json")
    if bert["model_type"] != "bert":
        sys.exit(f"{source} holds a {bert['model_type']!r}, and no 'bert'.")
    fields = {key: value for key, value in bert.items() if key not in ("model_type", "architectures")}
    groups = {f"{part}_groups": 1 for part in GROUPS}
    config = isobert.SqueezeBertConfig.from_dict({**fields, **groups, "embedding_size": bert["hidden_size"]})
    with open_checkpoint(source) as checkpoint:
        tensors = {}
        for name in checkpoint.names():
            new, shape = squeezebert_name(name), checkpoint.shape(name)
            if not new.startswith(("embeddings.", "encoder.", "pooler.")) or new.endswith("position_ids"):
                continue  # a head's, or no weights
            is_kernel = new.startswith("encoder.") and len(shape) == 2
            new_shape = (*shape, 1) if is_kernel else shape

            def load(name: str = name, shape: tuple[int, ...] = new_shape):  # type: ignore[no-untyped-def]
                return checkpoint.read(name).reshape(shape)

            tensors[new] = LazyTensor(new_shape, checkpoint.read(name).dtype, load)
        write_checkpoint(target, tensors)
    config.replace(architectures=["SqueezeBertModel"]).save_pretrained(target)
    shutil.copyfile(source / "vocab.txt", target / "vocab.txt")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
