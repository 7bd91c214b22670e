"""The `isobert` command. Each subcommand imports its work when it runs, so that help comes at once."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..core.tasks.options import TaskOptions
from ..core.training.options import TrainingOptions
from ..errors import IsobertError
from .options import with_options


class _Group(TyperGroup):
    """Answers the library's errors with one line on stderr and exit status 2, instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (IsobertError, OSError) as error:
            print(f"isobert: error: {error}", file=sys.stderr)
            raise typer.Exit(2) from error


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Framework(StrEnum):
    """What a checkpoint can be opened in."""

    pt = "pt"
    tf = "tf"


class Dtype(StrEnum):
    """What floating tensors can be cast to."""

    float64 = "float64"
    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


class Exact(StrEnum):
    """What equality can be shown in."""

    float64 = "float64"
    float32 = "float32"


class FormName(StrEnum):
    """What a checkpoint can be converted to."""

    safetensors = "safetensors"
    torch_bin = "torch-bin"
    transformers_h5 = "transformers-h5"
    keras = "keras"
    keras_weights = "keras-weights"


CheckpointArgument = Annotated[
    str,
    typer.Argument(help="A folder with a checkpoint, or a Hub name such as [cyan]google/mobilebert-uncased[/cyan]."),
]


# What `train`, `evaluate` and `predict` share.
TrainedModelOption = Annotated[
    str, typer.Option(help="A folder with a checkpoint that was trained for it, or a Hub name.")
]
FrameworkOption = Annotated[
    Framework | None, typer.Option(help="What to compute in. By default what is installed, PyTorch first.")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=COLUMN,...", help="Where the task's columns are: names, or numbers from 0 without a header."
    ),
]
SkipBrokenOption = Annotated[
    bool, typer.Option("--skip-broken", help="Leave broken lines out, and report them, instead of stopping.")
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Rows of a batch.")]
ComputeDtypeOption = Annotated[Dtype | None, typer.Option(help="What to compute in. By default float32.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="[cyan]cpu[/cyan] or [cyan]gpu[/cyan]. By default the GPU if there is one.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"isobert {__version__}")
        raise typer.Exit


@app.callback()
def isobert(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """RemBERT, ConvBERT, MobileBERT and SqueezeBERT for PyTorch and TensorFlow/Keras 3, from one checkpoint."""
    # TensorFlow greets on stderr when it is imported; its errors still come through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@app.command()
def info(
    checkpoint: CheckpointArgument,
    head: Annotated[
        str | None,
        typer.Option(
            help="Judge the checkpoint for this head, such as [cyan]ForTokenClassification[/cyan], or "
            "[cyan]Model[/cyan], the bare encoder. By default the head that it was saved with."
        ),
    ] = None,
) -> None:
    """Show what a checkpoint holds: family, heads, sizes, parameters, dtype, files, and what is missing or left over.

    Only headers are read, so a large checkpoint takes no longer than a small one, and no framework is started.
    """
    from .info import show_info

    show_info(checkpoint, head)


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A folder with a checkpoint of any form, TensorFlow 1 included, or one file of it, or a Hub name. "
            "Its content tells its form.",
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="The new folder. It appears only when everything is in it.")
    ],
    to: Annotated[
        FormName,
        typer.Option(
            help="[cyan]safetensors[/cyan]: the form that both frameworks open. [cyan]torch-bin[/cyan]: "
            "pytorch_model.bin, for readers that know nothing newer. [cyan]transformers-h5[/cyan]: tf_model.h5, for "
            "the TensorFlow classes of transformers 4. [cyan]keras[/cyan]: model.keras. [cyan]keras-weights[/cyan]: "
            "model.weights.h5."
        ),
    ] = FormName.safetensors,
    head: Annotated[
        str | None,
        typer.Option(
            help="Write this model, such as [cyan]ForMaskedLM[/cyan], or [cyan]Model[/cyan], the bare encoder; what is "
            "no part of it is left out. By default what is there."
        ),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Cast floating tensors to this; the largest rounding error is reported. By default kept."),
    ] = None,
    optimizer: Annotated[
        bool,
        typer.Option(
            help="Carry the state of AdamW along if there is one: optimizer.pt for PyTorch, inside the files for Keras."
        ),
    ] = True,
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Write in shards what is larger than this, such as 500MB or 2GiB.")
    ] = "5GB",
    force: Annotated[
        bool, typer.Option("--force", help="Replace DST if it exists and holds nothing but a checkpoint.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Open both as models before DST appears, in PyTorch and in Keras where both are installed, and "
            "compare their outputs. Without it the tensors alone are read back and compared.",
        ),
    ] = False,
) -> None:
    """Write a checkpoint in another form, dtype or number of shards; config and tokenizer files go along.

    Every tensor is written, repeats another, or is named with the reason why it was left out. One tensor at a time is
    in memory, however large the checkpoint is.
    """
    from .convert import run_convert

    run_convert(
        source,
        destination,
        to=to.value,
        dtype=dtype,
        head=head,
        optimizer=optimizer,
        max_shard_size=max_shard_size,
        force=force,
        verified=verify,
    )


@app.command()
def trim(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A folder with a RemBERT checkpoint, or a Hub name.")],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="The new folder. It appears only when everything is in it.")
    ],
    text: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE", help="UTF-8 text whose pieces are to stay, one text a line; give the option once a file."
        ),
    ],
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Open both checkpoints and compare their outputs on the first 8 lines, up to 128 tokens each, if a "
            "framework is installed.",
        ),
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Replace DST if it exists and holds nothing but a checkpoint.")
    ] = False,
) -> None:
    """Leave out of a RemBERT's vocabulary, and of its tables of words, what your text does not use.

    Every line is cut into the same pieces as before, and the model computes the same from them; both are checked
    before DST appears.
    """
    from .trim import run_trim

    run_trim(source, destination, text, force=force, verify=verify)


@app.command()
def verify(
    a: Annotated[str, typer.Argument(metavar="A", help="A folder with a checkpoint, or a Hub name.")],
    b: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]", help="Another checkpoint to hold A to. Without it, A is opened in both frameworks."
        ),
    ] = None,
    a_framework: Annotated[
        Framework, typer.Option(help="What A is opened in: PyTorch or TensorFlow/Keras.")
    ] = Framework.pt,
    b_framework: Annotated[
        Framework | None,
        typer.Option(help="What B is opened in. By default the other framework when there is no B, else A's."),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="The model to open, such as [cyan]ForMaskedLM[/cyan]; [cyan]Model[/cyan] is the bare encoder, which "
            "has no loss. By default the one that A was saved with."
        ),
    ] = None,
    dtype: Annotated[
        Exact,
        typer.Option(help="What to compute in. float64 tells a mistake from rounding; float32 is what is deployed."),
    ] = Exact.float64,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Run on this UTF-8 text, tokenized with A's tokenizer: its first 8 lines that are not empty, "
            "up to 128 tokens each. By default random ids.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random ids and labels.")] = 0,
    gradients: Annotated[
        bool, typer.Option("--gradients/--no-gradients", help="Compare the gradient of every parameter too.")
    ] = True,
    tolerance: Annotated[
        float | None,
        typer.Option(
            min=0, help="The relative error that counts as equal. By default 1e-10 in float64, 1e-5 in float32."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every figure to this file.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw the relative errors layer by layer into this picture (.png, .svg, .pdf)."
        ),
    ] = None,
) -> None:
    """Show that two models compute the same: every layer's output, the loss, and the gradient of every parameter.

    Exit status: 0 when equal, 1 when not, 2 when the comparison could not be made.
    """
    from .verify import VerifyOptions, run_verify

    other = b_framework or (a_framework if b is not None else Framework.tf if a_framework == "pt" else Framework.pt)
    options = VerifyOptions(
        a=a,
        b=b or a,
        a_framework=a_framework.value,
        b_framework=other.value,
        head=head,
        dtype=dtype.value,
        text=text,
        seed=seed,
        gradients=gradients,
        tolerance=tolerance,
        json_file=json_file,
        plot=plot,
    )
    if not run_verify(options):
        raise typer.Exit(1)


@app.command()
@with_options(
    TaskOptions,
    (
        *("max_length", "seed", "aggregation", "doc_stride", "max_question_length", "max_answer_length"),
        *("n_best", "null_threshold", "top_k", "pooling"),
    ),
)
def predict(
    task: Annotated[str, typer.Option(help="What to predict, such as [cyan]text-classification[/cyan].")],
    model: TrainedModelOption,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Examples: .txt (one a line), .tsv, .csv, .jsonl, .json, .conll, .parquet, or a data set's name.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the answers here, one JSON object a line. By default to stdout."),
    ] = None,
    framework: FrameworkOption = None,
    columns: ColumnsOption = None,
    split: Annotated[str | None, typer.Option(help="The part of a data set to read.")] = None,
    skip_broken: SkipBrokenOption = False,
    batch_size: BatchSizeOption = 32,
    dtype: ComputeDtypeOption = None,
    device: DeviceOption = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Text generation: tokens added to a prompt at most. By default 20.")
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Text generation: how many texts are followed at once.")
    ] = None,
    do_sample: Annotated[
        bool, typer.Option("--do-sample", help="Text generation: draw words by their probability and --seed.")
    ] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Text generation: below 1, likely words are drawn more often.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Text generation: draw from words with this much probability together.")
    ] = None,
    **given: Any,
) -> None:
    """Answer every example of a file with a model that was trained for the task, in the file's order."""
    from .predict import run_predict

    generation = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "temperature": temperature, "top_p": top_p}
    if do_sample:
        generation |= {"do_sample": True, "seed": given["seed"]}
    run_predict(
        task,
        model,
        source,
        output,
        framework=framework,
        columns=columns,
        split=split,
        skip_broken=skip_broken,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        options=given,
        generation={name: value for name, value in generation.items() if value is not None},
    )


@app.command()
@with_options(TrainingOptions)
def train(
    task: Annotated[str, typer.Option(help="What to learn, such as [cyan]text-classification[/cyan].")],
    model: Annotated[
        str,
        typer.Option(
            help="What to begin with: a folder with a checkpoint, or a Hub name; or, for a new model, a size such as "
            "[cyan]mobilebert-uncased[/cyan], or a folder with a config.json alone."
        ),
    ],
    train: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Examples to learn: .tsv, .csv, .jsonl, .json, .txt, .conll, .parquet, or a data set's name.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder for checkpoint, history and report.")],
    evaluation: Annotated[str | None, typer.Option("--eval", metavar="FILE", help="Examples to evaluate on.")] = None,
    framework: FrameworkOption = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="A vocabulary's file, a folder with a tokenizer, or a Hub name. By default MODEL's."),
    ] = None,
    columns: ColumnsOption = None,
    buckets: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="The only lengths to pad to: few, for what compiles for each (a TPU)."),
    ] = None,
    **given: Any,
) -> None:
    """Train a model for a task, evaluate it, and leave a checkpoint that both frameworks open.

    Stopped at any moment, the same command with --resume goes on from the last checkpoint in the output folder.
    """
    from .train import run_train

    run_train(
        task,
        model,
        train,
        evaluation,
        output,
        framework=framework,
        tokenizer=tokenizer,
        columns=columns,
        buckets=buckets,
        options=given,
    )


@app.command()
@with_options(
    TaskOptions,
    (
        *("max_length", "seed", "aggregation", "doc_stride", "max_question_length", "max_answer_length"),
        *("n_best", "null_threshold", "mask_probability", "whole_words"),
    ),
)
def evaluate(
    task: Annotated[str, typer.Option(help="What to measure, such as [cyan]text-classification[/cyan].")],
    model: TrainedModelOption,
    data: Annotated[
        str,
        typer.Option(
            "--eval",
            metavar="FILE",
            help="Examples with labels: .tsv, .csv, .jsonl, .json, .txt, .conll, .parquet, or a data set's name.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the figures here. By default eval.json in MODEL.")
    ] = None,
    framework: FrameworkOption = None,
    columns: ColumnsOption = None,
    split: Annotated[str, typer.Option(help="The part of a data set to read.")] = "validation",
    skip_broken: SkipBrokenOption = False,
    batch_size: BatchSizeOption = 32,
    dtype: ComputeDtypeOption = None,
    device: DeviceOption = None,
    **given: Any,
) -> None:
    """Measure a trained model on examples with labels: a table, and the figures by name as JSON."""
    from .train import run_evaluate

    run_evaluate(
        task,
        model,
        data,
        output,
        framework=framework,
        columns=columns,
        split=split,
        skip_broken=skip_broken,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        options=given,
    )


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the checkpoints, pictures and report.")] = Path(
        "isobert-demo"
    ),
    family: Annotated[str | None, typer.Option(help="The family of the model.")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Your own text files, one a topic; give the option once for each."),
    ] = None,
    topics: Annotated[int | None, typer.Option(help="How many of the longest topics to keep.")] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Pieces of the vocabulary that is trained.")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers of the model.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width of the model.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the passages in PyTorch.")] = None,
    keras_epochs: Annotated[int | None, typer.Option(help="Passes over the passages in Keras, afterwards.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Passages a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens a passage.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
) -> None:
    """Train on real text in PyTorch, open the checkpoint in Keras, show it equal, train on, and go back.

    The text is Python's own language reference, which is part of every Python; nothing is downloaded.
    """
    # What is not given keeps the default that stands in DemoOptions.
    given = {name: value for name, value in locals().items() if value not in (None, [])}
    from .demo import DemoOptions, run_demo

    if not run_demo(DemoOptions(**given)).passed:
        raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    app()
