"""The demo's two short training loops, with one interface, and the learning curve that runs through both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..core.hub import atomic_write

Arrays = dict[str, np.ndarray]


@dataclass
class History:
    """One row an epoch: the framework, the mean training loss, and the held-out accuracy after it."""

    frameworks: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def add(self, framework: str, loss: float, accuracy: float) -> None:
        """Note one epoch."""
        self.frameworks.append(framework)
        self.losses.append(loss)
        self.accuracies.append(accuracy)

    def plot(self, path: Path, *, majority: float) -> None:
        """Draw loss and accuracy by epoch, each framework's stretch shaded, and write the picture to `path`."""
        from matplotlib.figure import Figure  # not pyplot: no window, no global state

        epochs = np.arange(1, len(self.losses) + 1)
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        loss_axis = figure.add_subplot()
        accuracy_axis = loss_axis.twinx()
        for framework, colour in (("PyTorch", "#ee4c2c"), ("Keras", "#3949ab")):
            own = [epoch for epoch, name in zip(epochs, self.frameworks, strict=True) if name == framework]
            if own:
                middle = float(np.mean(own))
                loss_axis.axvspan(own[0] - 0.5, own[-1] + 0.5, color=colour, alpha=0.1, lw=0)
                loss_axis.text(middle, 1.01, framework, transform=loss_axis.get_xaxis_transform(), ha="center")
        (loss_line,) = loss_axis.plot(epochs, self.losses, "o-", color="#1f4e79", label="training loss")
        (accuracy_line,) = accuracy_axis.plot(epochs, self.accuracies, "s-", color="#2e7d32", label="held-out accuracy")
        majority_line = accuracy_axis.axhline(majority, color="#2e7d32", ls=":", label="majority class")
        loss_axis.set(xlabel="epoch", ylabel="training loss", ylim=(0, None), xlim=(0.5, len(epochs) + 0.5))
        accuracy_axis.set(ylabel="held-out accuracy", ylim=(0, 1))
        loss_axis.legend(handles=[loss_line, accuracy_line, majority_line], loc="center right")
        with atomic_write(path) as temporary:
            figure.savefig(temporary, dpi=140)


class PyTorchTrainer:
    """Trains a PyTorch classifier on arrays, and measures it."""

    name = "PyTorch"

    def __init__(self, model: Any, *, seed: int) -> None:
        self.model = model
        self.shuffler = np.random.default_rng(seed)

    def train(
        self,
        train: Arrays,
        held_out: Arrays,
        history: History,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        console: Console,
    ) -> None:
        """Run AdamW over `train` for some epochs, noting each in `history`."""
        import torch

        optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=0.01)
        count = len(train["labels"])
        with _progress(console, self.name, epochs * -(-count // batch_size)) as (bar, task):
            for _ in range(epochs):
                self.model.train()
                losses = []
                for rows in np.array_split(self.shuffler.permutation(count), -(-count // batch_size)):
                    optimizer.zero_grad()
                    loss = self.model(**_torch_batch(train, rows)).loss
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
                    optimizer.step()
                    losses.append(loss.item())
                    bar.update(task, advance=1, loss=losses[-1])
                history.add(self.name, float(np.mean(losses)), self.accuracy(held_out))
                bar.update(task, accuracy=history.accuracies[-1])

    def accuracy(self, data: Arrays) -> float:
        """Return the share of `data` that the model labels rightly."""
        import torch

        self.model.eval()
        with torch.no_grad():
            logits = self.model(**_torch_batch(data, slice(None))).logits.numpy()
        return float(np.mean(logits.argmax(-1) == data["labels"]))


def _torch_batch(data: Arrays, rows: Any) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(array[rows]) for name, array in data.items()}


class KerasTrainer:
    """Trains a Keras classifier on arrays with `fit`, and measures it."""

    name = "Keras"

    def __init__(self, model: Any) -> None:
        self.model = model

    def train(
        self,
        train: Arrays,
        held_out: Arrays,
        history: History,
        epochs: int,
        batch_size: int,
        learning_rate: float,
        console: Console,
    ) -> None:
        """Run AdamW over `train` for some epochs, noting each in `history`."""
        import keras

        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=0.01, epsilon=1e-8, global_clipnorm=1.0)
        self.model.compile(optimizer=optimizer)
        steps = -(-len(train["labels"]) // batch_size)
        with _progress(console, self.name, epochs * steps) as (bar, task):

            def after_batch(batch: int, logs: dict[str, float]) -> None:
                bar.update(task, advance=1, loss=logs["loss"])

            def after_epoch(epoch: int, logs: dict[str, float]) -> None:
                history.add(self.name, logs["loss"], self.accuracy(held_out))
                bar.update(task, accuracy=history.accuracies[-1])

            watch = keras.callbacks.LambdaCallback(on_train_batch_end=after_batch, on_epoch_end=after_epoch)
            self.model.fit(train, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[watch])

    def accuracy(self, data: Arrays) -> float:
        """Return the share of `data` that the model labels rightly."""
        inputs = {name: array for name, array in data.items() if name != "labels"}
        logits = self.model.predict(inputs, batch_size=len(data["labels"]), verbose=0).logits
        return float(np.mean(logits.argmax(-1) == data["labels"]))


@contextmanager
def _progress(console: Console, name: str, steps: int) -> Iterator[tuple[Progress, TaskID]]:
    """Show a bar with the steps, the loss, the last held-out accuracy and the time left."""
    columns = (
        TextColumn(name),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TextColumn("held-out accuracy {task.fields[accuracy]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield bar, bar.add_task(name, total=steps, loss=float("nan"), accuracy=float("nan"))
