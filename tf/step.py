"""One step of training in Keras: gradients of all parts on all devices, added up, clipped, and given to AdamW."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..conversion.optimizer import OPTIMIZER_FILE
from ..core.hub import atomic_write
from ..core.schedules import learning_rate_at
from ..core.training.options import TrainingOptions
from ..core.training.plan import NEXT_SENTENCE, decays
from ..errors import CheckpointError
from .losses import cross_entropy
from .modeling import TFPreTrainedModel
from .optimizers import TFAdamW

STATE_FILE = "keras_state.safetensors"
"""What Keras keeps of a run beside the model: the optimizer's variables, and where the generators of dropout stand."""

# What torch.nn.utils.clip_grad_norm_ adds to the norm before it divides by it.
_CLIPPING_EPSILON = 1e-6


class ClippingAdamW(TFAdamW):
    """`TFAdamW` that cuts gradients as `torch.nn.utils.clip_grad_norm_` does, once those of all devices are added up.

    Keras's own `global_clipnorm` has another formula, and cuts each device's gradients before they are added up.

    Args:
        max_norm: the norm that gradients are cut to, all together; None cuts nothing.
        kwargs: as in `TFAdamW`.
    """

    def __init__(self, max_norm: float | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_norm = max_norm

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        if self.max_norm is None:
            return pairs
        gradients = [gradient for gradient, _ in pairs]
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in gradients]))
        scale = tf.minimum(self.max_norm / (norm + _CLIPPING_EPSILON), 1.0)
        return [(gradient * scale, variable) for gradient, variable in pairs]


@keras.saving.register_keras_serializable("isobert")
class PlannedRate(keras.optimizers.schedules.LearningRateSchedule):
    """The rate of each step as `learning_rate_at` says it, computed beforehand.

    Args:
        rates: the rates of the steps.
        step: the variable with the number of the step. An optimizer's own number is not it, since a step of float16
            that overflows is left out there.
    """

    def __init__(self, rates: np.ndarray, step: Any) -> None:
        self.rates, self.step = tf.constant(rates), step

    def __call__(self, step: Any) -> Any:
        """Return the rate of the step that is being made, whatever number it has to the optimizer."""
        return tf.gather(self.rates, tf.convert_to_tensor(self.step))


class TrainingStep(keras.Model):
    """What `fit` runs for each `Element` of `data.py`; the model to be trained is a part of it.

    The step's loss is the mean over what counts in all of its rows: each part's loss is weighted by its share.

    Args:
        model: the model to be trained.
        options: how.
        total_steps: of the whole run.
        window: how many of the last losses are kept.

    Attributes:
        step: how many steps are done, int64.
        losses_kept: the losses of the last steps `[window]`, the loss of a step at its number modulo `window`.
        adamw: the optimizer itself, without what scales losses of float16.
    """

    def __init__(self, model: TFPreTrainedModel, options: TrainingOptions, total_steps: int, window: int) -> None:
        super().__init__(dtype=model.variable_dtype, name="training_step")
        self.trained, self.window = model, window
        places = {"initializer": "zeros", "trainable": False, "aggregation": "only_first_replica"}
        self.step = self.add_weight(shape=(), dtype="int64", name="step", **places)
        self.losses_kept = self.add_weight(shape=(window,), dtype=model.variable_dtype, name="losses_kept", **places)
        self.built = True
        rates = np.array([learning_rate_at(step, total_steps, options) for step in range(total_steps)])
        self.adamw = ClippingAdamW(
            options.max_grad_norm,
            learning_rate=PlannedRate(rates.astype(model.variable_dtype), self.step),
            weight_decay=options.weight_decay,
            beta_1=options.beta_1,
            beta_2=options.beta_2,
            epsilon=options.epsilon,
            undecayed=[name for name in model._hub_variables() if not decays(name)],
        )
        self.adamw.build(model.trainable_variables)
        optimizer = self.adamw
        if options.dtype == "float16":
            optimizer = keras.optimizers.LossScaleOptimizer(self.adamw)
            optimizer.build(model.trainable_variables)
        self.compile(
            optimizer=optimizer,
            jit_compile=options.compile,
            steps_per_execution=options.steps_per_execution,
            auto_scale_loss=False,
        )

    def train_step(self, data: Any) -> dict[str, Any]:
        """Make one step with a device's `Element`."""
        inputs, counts = data
        context = tf.distribute.get_replica_context()
        shares = {}
        for name, count in counts.items():
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(count))
            shares[name] = tf.cast(count, self.dtype) / tf.cast(tf.maximum(total, 1), self.dtype)
        variables = self.trained.trainable_variables
        loss, gradients = self._add_up(inputs, shares, variables)
        # As in PyTorch, what the loss is apart from stays as it is, decay included.
        trained = [number for number, gradient in enumerate(gradients) if gradient is not None]
        self.optimizer.apply([gradients[number] for number in trained], [variables[number] for number in trained])
        loss = context.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        step = tf.convert_to_tensor(self.step)
        place = tf.one_hot(step % self.window, self.window, on_value=True, off_value=False, dtype=tf.bool)
        self.losses_kept.assign(tf.where(place, loss, tf.convert_to_tensor(self.losses_kept)))
        self.step.assign(step + 1)
        # `fit` wants something; whoever looks at losses takes them from `losses_kept`.
        return {"loss": loss[None]}

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Leave out what Keras does for models that are not built: it cannot take several workers' rows apart."""

    def seed(self, seed: int) -> None:
        """Let every dropout begin at a place of its own, which hangs on the seed alone."""
        for number, generator in enumerate(self._generators()):
            (own,) = np.random.SeedSequence([seed, number]).generate_state(1)
            generator.state.assign(np.array([own, 0], np.uint32))

    def save(self, folder: Path) -> None:
        """Write what a run needs to go on, beside the model."""
        with atomic_write(folder / STATE_FILE) as temporary:
            save_file({name: np.asarray(tf.convert_to_tensor(v)) for name, v in self._state().items()}, temporary)

    def restore(self, folder: Path, step: int) -> None:
        """Go on from a checkpoint after so many steps; one that PyTorch wrote says nothing of dropout.

        Raises:
            CheckpointError: it is damaged, or of another model.
            MissingDependencyError: PyTorch wrote it, and torch is not installed.
        """
        self.step.assign(step)
        if not (folder / STATE_FILE).exists() and (folder / OPTIMIZER_FILE).exists():
            carried = TFAdamW.from_pretrained(folder, self.trained, learning_rate=self.adamw._learning_rate)
            for own, variable in zip(self.adamw.variables, carried.variables, strict=True):
                own.assign(tf.convert_to_tensor(variable))
            return
        held = _read_state(folder / STATE_FILE)
        variables = self._state()
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        if {name: array.shape for name, array in held.items()} != shapes:
            raise CheckpointError(f"{folder / STATE_FILE} is of another model, or of other settings.")
        for name, variable in variables.items():
            variable.assign(held[name])

    def _state(self) -> dict[str, Any]:
        optimizer = {f"optimizer.{number}": variable for number, variable in enumerate(self.optimizer.variables)}
        return optimizer | {f"dropout.{number}": g.state for number, g in enumerate(self._generators())}

    def _generators(self) -> Iterator[Any]:
        for layer in self.trained._flatten_layers():
            if getattr(layer, "rate", 0.0) > 0:
                yield layer.seed_generator

    def _add_up(self, inputs: Any, shares: Any, variables: list[Any]) -> tuple[Any, list[Any]]:
        """Return the sums over the parts of their losses and their gradients; None for what the loss is apart from."""
        if shares["labels"].shape[0] == 1:
            return self._part(inputs, shares, 0, variables)
        # One part after the other, so that one part's activations are in memory.
        apart: set[int] = set()

        def add(part: Any, loss: Any, *sums: Any) -> tuple[Any, ...]:
            own_loss, gradients = self._part(inputs, shares, part, variables)
            apart.update(i for i, gradient in enumerate(gradients) if gradient is None)
            added = (s if g is None else s + g for s, g in zip(sums, gradients, strict=True))
            return (part + 1, loss + own_loss, *added)

        count = tf.shape(shares["labels"])[0]
        zeros = (tf.zeros(variable.shape, variable.dtype) for variable in variables)
        begin = (tf.constant(0), tf.zeros((), self.dtype), *zeros)
        _, loss, *sums = tf.while_loop(lambda part, *_: part < count, add, begin)
        return loss, [None if i in apart else total for i, total in enumerate(sums)]

    def _part(self, inputs: Any, shares: Any, part: Any, variables: list[Any]) -> tuple[Any, list[Any]]:
        """Return a part's share of the loss, and of the gradients."""
        own = {name: array[part] for name, array in inputs.items()}
        with tf.GradientTape() as tape:
            output = self.trained(own, training=True)
            loss = _shared_loss(output, own, {name: share[part] for name, share in shares.items()})
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        # A table's gradient comes as rows, of which a norm or a sum of parts would know nothing.
        return loss, [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]


def _shared_loss(output: Mapping[str, Any], inputs: Mapping[str, Any], shares: Mapping[str, Any]) -> Any:
    """Return a part's share of a step's loss: each term of it by its own share.

    Where there are two terms, the loss is their sum, and one is computed again to tell them apart.
    """
    loss = output["loss"] * tf.cast(shares["labels"], output["loss"].dtype)
    if NEXT_SENTENCE in shares:
        other = cross_entropy(output["seq_relationship_logits"], inputs[NEXT_SENTENCE], NEXT_SENTENCE)
        loss = loss + other * tf.cast(shares[NEXT_SENTENCE] - shares["labels"], other.dtype)
    return loss


def _read_state(path: Path) -> dict[str, np.ndarray]:
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): a run cannot go on from here. Begin anew in another folder."
        ) from error
