"""What every Keras model of the library does: open and save checkpoints, resize its vocabulary, trace itself."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import keras
import ml_dtypes  # noqa: F401  (teaches NumPy the dtype "bfloat16")
import numpy as np
import optree
from keras import ops

from ..conversion.checkpoint import Checkpoint, LazyTensor, LoadPlan, match_tensors, open_checkpoint, write_checkpoint
from ..conversion.formats.base import aligned, aligned_empty
from ..conversion.layouts import Layout, from_hub, hub_shape, to_hub
from ..conversion.names import family_names, keras_to_hub
from ..core.config import IGNORED_LABEL, PretrainedConfig
from ..core.outputs import OUTPUT_CLASSES, ModelOutput, Trace
from ..errors import ConfigError, InputError, OptimizedModelError
from ..tokenization.encoding import BatchEncoding
from . import optimizers  # noqa: F401  (so that Keras finds the class where it opens a compiled model)
from .inputs import check_shape, check_tensors, input_error, is_floating_point
from .layers import Block, Embedding, Encoder, adopted, replace_weight, resized

logger = logging.getLogger("isobert")


class TFPreTrainedModel(keras.Model):
    """Base of all models. A model is made from a config, `cls(config)`, with new weights, or by `from_pretrained`.

    New dense and embedding weights are drawn from a normal distribution with the standard deviation
    `config.initializer_range`, cut off at two deviations, as in Google's code; biases are zero and norms the identity.

    A model is called with arguments by name, or with one dict of them. With labels among them the output has the loss,
    so that `compile(optimizer)` and `fit` are enough; `compile(loss=...)` and `fit(x, y)` work as for any Keras model,
    where loss and metrics see the scores: one tensor, or a dict of them where a head has several.

    Args:
        config: the family's config. The model keeps it as `self.config`.
        dtype: a dtype or policy, such as "float64" or "mixed_bfloat16"; None is Keras's global policy.
        name: the model's name.

    Raises:
        ConfigError: it is another family's config, or not legal.
    """

    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    base_model_prefix: ClassVar[str] = ""
    # Which scores each kind of labels is for, by the names in the inputs and in the output.
    targets: ClassVar[dict[str, str]] = {}
    # Axes of `input_ids`.
    input_rank: ClassVar[int] = 2
    # A decoder's compiled step, made when it is first needed.
    decode_function: Any = None
    # What `tf.optimize` did to this model, in sentences; empty if it is as it was made.
    optimizations: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable("isobert")(cls)

    def __init__(self, config: PretrainedConfig, *, dtype: Any = None, name: str | None = None, **kwargs: Any) -> None:
        if not isinstance(config, self.config_class):
            raise ConfigError(
                f"{type(self).__name__} takes a {self.config_class.__name__}; it got a {type(config).__name__}."
            )
        config.validate()
        # Inputs are not cast to the compute dtype: labels of a regression must stay as exact as they are.
        super().__init__(dtype=dtype, name=name, autocast=False, **kwargs)
        self.config = config

    # What Keras asks for.

    def build(self, input_shape: Any = None) -> None:
        """Build the parts. Constructors do so: a model has all its variables once it is made."""
        Block.build(self)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, ready for JSON."""
        return {**super().get_config(), "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config: Any, custom_objects: Any = None) -> Any:
        """Make a model from what `get_config` returned, or from a config of the family."""
        if isinstance(config, PretrainedConfig):
            return cls(config)
        arguments = {**config, "config": cls.config_class.from_dict(config["config"])}
        if isinstance(arguments.get("dtype"), dict):
            arguments["dtype"] = keras.dtype_policies.deserialize(arguments["dtype"])
        return cls(**arguments)

    def __dir__(self) -> list[str]:
        # Keras finds the parts to save by `dir`, and would follow a bare encoder's `base_model` to itself forever.
        return [name for name in super().__dir__() if name != "base_model"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with arguments in order or by name, or with one mapping of them."""
        args, kwargs = self._by_name(args, kwargs)
        if kwargs.get("training"):
            self._refuse_if_optimized("trained")
        return super().__call__(*args, **kwargs)

    def stateless_call(self, trainable: Any, non_trainable: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model with given values of its variables, as Keras does under JAX."""
        return_losses = kwargs.pop("return_losses", False)
        args, kwargs = self._by_name(args, kwargs)
        return super().stateless_call(trainable, non_trainable, *args, return_losses=return_losses, **kwargs)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Take a mapping in the first argument apart, and check the names."""
        if args and isinstance(args[0], Mapping):
            args, kwargs = args[1:], {**args[0], **kwargs}
            if args:
                raise InputError("After a mapping of the inputs, give further arguments by name.")
        known = inspect.signature(self.call).parameters
        unknown = [name for name in kwargs if name not in known]
        if unknown:
            raise InputError(
                f"{type(self).__name__} takes no input {', '.join(map(repr, unknown))}; it takes {', '.join(known)}."
            )
        check_tensors(**dict(zip(known, args, strict=False)), **kwargs)
        return args, kwargs

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train the model, as `keras.Model.fit` does.

        Raises:
            OptimizedModelError: it is an optimized model.
        """
        self._refuse_if_optimized("trained")
        return super().fit(*args, **kwargs)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Write the model in Keras's own form, as `keras.Model.save` does.

        Raises:
            OptimizedModelError: it is an optimized model.
        """
        self._refuse_if_optimized("saved")
        super().save(*args, **kwargs)

    def _refuse_if_optimized(self, what: str) -> None:
        if self.optimizations:
            raise OptimizedModelError(
                f"An optimized {type(self).__name__} cannot be {what}; use the model that it was made of."
            )

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the loss of a step: the model's own where the labels are in `x`, else that of `compile(loss=...)`."""
        if y is not None:
            return super().compute_loss(x, self._by_score(y), self._scores(y_pred), sample_weight, training)
        if sample_weight is not None or y_pred.get("loss") is None:
            wanted = " and ".join(map(repr, self.targets)) or "none: this model has no head"
            raise input_error(
                f"{type(self).__name__} has no loss to train with. Give labels among the inputs (its own: {wanted}) "
                "and no sample_weight, or give y, with compile(loss=...)."
            )
        # As Keras does with its own additional losses: scaled where several devices share a batch.
        return sum(self._aggregate_additional_loss(loss) for loss in (y_pred["loss"], *self.losses))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the compiled metrics; without `y` they see the labels among the inputs.

        `weighted_metrics` then leave out the labels of -100.
        """
        if y is None and isinstance(x, Mapping):
            labels = {self.targets[name]: x[name] for name in self.targets if x.get(name) is not None}
            weights = {
                name: ops.ones_like(values) if is_floating_point(values) else ops.not_equal(values, IGNORED_LABEL)
                for name, values in labels.items()
            }
            y, sample_weight = (_only(labels), _only(weights)) if labels else (None, None)
        elif y is not None:
            y = self._by_score(y)
        return super().compute_metrics(x, y, self._scores(y_pred), sample_weight)

    def predict_step(self, *args: Any) -> Any:
        """Return the output of a step without the loss, which is no prediction and cannot be joined over batches."""
        *state, data = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if isinstance(x, Mapping):  # with labels, there might be a loss in the place of scores
            x = {name: values for name, values in x.items() if name not in self.targets}
        result = super().predict_step(*state, keras.utils.pack_x_y_sample_weight(x, y, sample_weight))
        if isinstance(result, ModelOutput):
            return _without_loss(result)
        return _without_loss(result[0]), *result[1:]  # under JAX, variables follow

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: Any = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write the model for serving, by default as a TensorFlow SavedModel.

        It takes a dict of `input_ids`, `attention_mask` and `token_type_ids` (int32, any batch size and length) and
        returns a dict of the outputs; members of a tuple come as `hidden_states.0` and so on.

        Args:
            filepath: where to.
            format: one that `keras.Model.export` knows.
            verbose: whether Keras tells what it wrote.
            input_signature: as in `keras.Model.export`, to export the model's call as it is instead.
            kwargs: as in `keras.Model.export`.
        """
        if input_signature is not None:
            super().export(filepath, format, verbose, input_signature, **kwargs)
            return
        shape = (None,) * (self.input_rank - 1)
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: keras.Input(shape, dtype="int32", name=name) for name in names}
        served = keras.Model(inputs, dict(_flat(_without_loss(self(inputs)))), name=self.name)
        served.export(filepath, format, verbose, **kwargs)

    def _scores(self, output: ModelOutput) -> Any:
        """Return what losses and metrics see of an output."""
        wanted = list(self.targets.values()) or [n for n in output if n in ("last_hidden_state", "pooler_output")]
        return _only({name: output[name] for name in wanted if name in output})

    def _by_score(self, y: Any) -> Any:
        """Return `y` with its parts, if it has several, under the names of the scores that they are for."""
        if not isinstance(y, Mapping):
            return y
        return _only({self.targets.get(name) or name: values for name, values in y.items()})

    # The parts that a family supplies for the heads of `heads.py`.

    def make_base_model(self, add_pooling_layer: bool) -> TFPreTrainedModel:
        """Return a new encoder for a model with a head."""
        raise NotImplementedError

    def make_lm_head(self) -> keras.layers.Layer:
        """Return a new head that scores words."""
        raise NotImplementedError

    # Parts and parameters.

    @property
    def base_model(self) -> TFPreTrainedModel:
        """The encoder: of a model with a head the part below it, of a bare encoder itself."""
        encoder: Any = getattr(self, self.base_model_prefix, self)
        return encoder

    def num_parameters(self, trainable_only: bool = False) -> int:
        """Return the number of parameters; what is shared counts once."""
        return sum(int(np.prod(v.shape)) for v in self.weights if v.trainable or not trainable_only)

    def get_input_embeddings(self) -> Embedding:
        """Return the table of word embeddings."""
        return self.base_model.embeddings.word_embeddings

    def set_input_embeddings(self, embeddings: Embedding) -> None:
        """Take over the vectors of another table; a head that shares them follows.

        Raises:
            InputError: it is not `[vocab_size, embedding_size]`; `resize_token_embeddings` changes the number of words.
        """
        own = self.get_input_embeddings().embeddings
        check_shape("The new table of word embeddings", embeddings.embeddings, tuple(own.shape))
        own.assign(embeddings.embeddings)

    def get_lm_head(self) -> Any:
        """Return the part that scores words, which has `tie_weights` and `resize`; None where there is none."""
        return None

    def tie_weights(self) -> None:
        """Let the head that scores words share the input embeddings, if `config.tie_word_embeddings`."""
        head = self.get_lm_head()
        if head is not None:
            head.tie_weights(self.get_input_embeddings() if self.config.tie_word_embeddings else None)

    def resize_token_embeddings(self, new_num_tokens: int, pad_to_multiple_of: int | None = None) -> Embedding:
        """Change the number of words, here, in the head that scores words and in the config; keep the first ones.

        New vectors are drawn as for a new model. Compile afterwards: the tables are new variables.

        Args:
            new_num_tokens: the new number of words.
            pad_to_multiple_of: round it up to a multiple of this, such as 8 or 64 for speed.

        Returns:
            The table of word embeddings.

        Raises:
            ConfigError: the number is not positive, or leaves out the padding id.
        """
        step = pad_to_multiple_of or 1
        config = self.config.replace(vocab_size=-(-new_num_tokens // step) * step)
        embeddings = self.get_input_embeddings()
        vectors = resized(embeddings.embeddings, config.vocab_size, config.initializer_range)
        replace_weight(embeddings, "_embeddings", vectors)
        embeddings.input_dim = config.vocab_size
        head = self.get_lm_head()
        if head is not None:
            head.resize(config.vocab_size)
        self.config = self.base_model.config = config
        # Traced with the old tables.
        self.train_function = self.test_function = self.predict_function = self.decode_function = None
        return embeddings

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return any(layer.gradient_checkpointing for layer in self._flatten_layers() if isinstance(layer, Encoder))

    def gradient_checkpointing_enable(self) -> None:
        """Trade time for memory in training: keep each layer's input alone, and compute the rest of it again.

        Raises:
            NotImplementedError: Keras runs on another backend than TensorFlow.
        """
        if keras.backend.backend() != "tensorflow":
            raise NotImplementedError(
                f"Keras runs on {keras.backend.backend()!r}, where a layer's dropout cannot be computed a second time; "
                "gradient checkpointing needs KERAS_BACKEND=tensorflow."
            )
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything that the backward pass needs."""
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, value: bool) -> None:
        for layer in self._flatten_layers():
            if isinstance(layer, Encoder):
                layer.gradient_checkpointing = value
        self.train_function = None  # traced anew by the next `fit`

    # Checkpoints.

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: PretrainedConfig | None = None,
        dtype: Any = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **config_overrides: Any,
    ) -> Any:
        """Open a checkpoint: a folder, or a repository of the Hub.

        The checkpoint may be of the bare encoder or of any head; what it lacks is newly initialised, and what is
        missing, left over or of another shape is logged as a warning under `isobert`, by name.

        Args:
            name_or_path: a folder with `config.json` and weights, or a Hub name such as `google/mobilebert-uncased`.
            config: used in place of the checkpoint's `config.json`.
            dtype: of the parameters: "float32", "bfloat16" and so on, or a policy such as "mixed_bfloat16"; None is
                Keras's global policy, "auto" the checkpoint's own dtype.
            ignore_mismatched_sizes: initialise a tensor of another shape anew, instead of raising.
            output_loading_info: also return the `LoadReport`.
            config_overrides: fields of the config to replace, such as `num_labels=3`.

        Returns:
            The model; with `output_loading_info`, a pair of it and the report.

        Raises:
            CheckpointNotFoundError: there is no config or no checkpoint.
            CheckpointError: the checkpoint is damaged, fits no tensor of the model, or has tensors of other shapes.
            ConfigError: the config is another family's, or not legal.
        """
        if config is None:
            config = cls.config_class.from_pretrained(name_or_path, **config_overrides)
        elif config_overrides:
            config = config.replace(**config_overrides)
        with open_checkpoint(name_or_path) as checkpoint:
            # In this scope variables are made without values; they get them when it ends.
            with keras.StatelessScope():
                model = cls(config, dtype=_resolve_dtype(dtype, checkpoint))
                plan = model._plan(checkpoint, ignore_mismatched_sizes)
            model._load(checkpoint, plan)
        if plan.report:
            logger.warning("%s from %s:\n%s", cls.__name__, name_or_path, plan.report)
        return (model, plan.report) if output_loading_info else model

    def _plan(self, checkpoint: Checkpoint, ignore_mismatched_sizes: bool) -> LoadPlan:
        """Find out what the checkpoint has; nothing is drawn for that, once the variables get values."""
        held = self._hub_variables()
        plan = match_tensors(
            {name: hub_shape(tuple(variable.shape), layout) for name, (variable, layout) in held.items()},
            checkpoint,
            family_names(self.config.model_type),
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        for name in plan.sources:
            held[name][0]._initializer = _unfilled
        return plan

    def _load(self, checkpoint: Checkpoint, plan: LoadPlan) -> None:
        """Assign the checkpoint's tensors one by one, so that a second copy of one of them at most is in memory."""
        held = self._hub_variables()
        for name, source in plan.sources.items():
            variable, layout = held[name]
            array = from_hub(checkpoint.read(source), layout, tuple(variable.shape))
            variable.assign(adopted(aligned(array, np.dtype(keras.backend.standardize_dtype(variable.dtype)))))

    def save_pretrained(self, folder: str | os.PathLike[str], *, max_shard_size: int | str = "5GB") -> None:
        """Write `config.json` and `model.safetensors` (in shards above a size), for PyTorch and Keras alike.

        What is there stays until the new is complete. A shared tensor is written once, under its first name.

        Args:
            folder: made if need be.
            max_shard_size: bytes, or a text such as "5GB".

        Raises:
            OptimizedModelError: it is an optimized model, whose weights are no checkpoint's.
        """
        self._refuse_if_optimized("saved")
        tensors = {name: _to_lazy(variable, layout) for name, (variable, layout) in self._hub_variables().items()}
        write_checkpoint(folder, tensors, max_shard_size=max_shard_size)
        architecture = type(self).__name__.removeprefix("TF")
        self.config.for_checkpoint(architecture, keras.backend.standardize_dtype(self.variable_dtype)).save_pretrained(
            folder
        )

    def _hub_variables(self) -> dict[str, tuple[Any, Layout]]:
        """Return each variable, and how it lies relative to the Hub's, under its Hub name."""
        found = {}
        for variable in self.weights:
            name, layout = keras_to_hub(f"model/{variable.path.removeprefix(f'{self.path}/')}")
            found[name] = (variable, layout)
        return found

    # Comparison with another framework.

    def trace(self, inputs: Mapping[str, np.ndarray], gradients: bool = True) -> Trace:
        """Run the model on NumPy arrays, without dropout, and return everything it computes as NumPy arrays.

        Args:
            inputs: arguments of `call` by name, labels among them; floating ones are taken to the model's dtype.
            gradients: whether to return the loss's gradients (none without labels). A parameter that the loss does not
                depend on has a gradient of zeros; one that is not trained has none.

        Raises:
            NotImplementedError: gradients are asked for under a backend other than TensorFlow.
        """
        tensors = {name: ops.convert_to_tensor(array) for name, array in inputs.items()}
        tensors = {name: ops.cast(t, self.dtype) if is_floating_point(t) else t for name, t in tensors.items()}
        trained = {name: held for name, held in self._hub_variables().items() if held[0].trainable}
        asked = {"output_hidden_states": True, "output_attentions": True, "training": False}
        if self.get_lm_head() is not None:
            asked["output_logits"] = True  # a loss of words would stand for their scores
        slopes: list[Any] = []
        if not gradients:
            output = self(tensors, **asked)
        elif keras.backend.backend() != "tensorflow":
            raise NotImplementedError(
                f"Keras runs on {keras.backend.backend()!r}; gradients are traced under KERAS_BACKEND=tensorflow "
                "alone. Ask for trace(..., gradients=False)."
            )
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                output = self(tensors, **asked)
            sources = [variable.value for variable, _ in trained.values()]
            zeros = tf.UnconnectedGradients.ZERO
            if "loss" in output:
                slopes = tape.gradient(output["loss"], sources, unconnected_gradients=zeros)
        found = {
            name: to_hub(_to_numpy(ops.convert_to_tensor(slope)), layout)
            for (name, (_, layout)), slope in zip(trained.items(), slopes, strict=False)
        }
        outputs = {name: _to_numpy(value) for name, value in _flat(_without_loss(output))}
        return Trace(outputs, float(output["loss"]) if "loss" in output else None, found)


def _only(parts: dict[str, Any]) -> Any:
    """Return the one value of a dict, or the dict if it has several."""
    return next(iter(parts.values())) if len(parts) == 1 else parts


def _without_loss(output: ModelOutput) -> ModelOutput:
    """Leave out the loss, and a decoder's cache, which is of no use elsewhere."""
    return type(output)({name: value for name, value in output.items() if name not in ("loss", "past_key_values")})


def _flat(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield each output; members of a tuple as `hidden_states.0` and so on."""
    for name, value in outputs.items():
        if isinstance(value, tuple | list):
            yield from ((f"{name}.{i}", member) for i, member in enumerate(value))
        else:
            yield name, value


def _resolve_dtype(dtype: Any, checkpoint: Checkpoint) -> Any:
    """Return the dtype policy that `from_pretrained` was asked for."""
    if dtype == "auto":
        held = [checkpoint.dtype(name) for name in checkpoint.names()]
        dtype = next((kind for kind in held if keras.backend.is_float_dtype(kind)), None)
    try:
        policy = keras.dtype_policies.get(dtype)
        if not keras.backend.is_float_dtype(policy.variable_dtype):
            raise ValueError("not a floating-point dtype")
    except (TypeError, ValueError) as error:
        raise InputError(
            f'dtype is {dtype!r}; give "float32", "float64", "bfloat16", "float16", "mixed_bfloat16", "auto" or None.'
        ) from error
    return policy


def _unfilled(shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Return a value that takes up no memory until it is written to, for a variable that is about to get another."""
    return adopted(aligned_empty(shape, np.dtype(keras.backend.standardize_dtype(dtype))))


def _to_lazy(variable: Any, layout: Layout) -> LazyTensor:
    """Describe a variable for writing; when its turn comes, it is seen as an array, and copied if it lies otherwise."""

    def load() -> np.ndarray:
        # Of a tensor NumPy sees the memory, of a variable a copy; stopping a gradient makes a tensor of it.
        return np.ascontiguousarray(to_hub(np.asarray(ops.stop_gradient(variable)), layout))

    return LazyTensor(
        hub_shape(tuple(variable.shape), layout),
        np.dtype(keras.backend.standardize_dtype(variable.dtype)),
        load,
    )


def _to_numpy(tensor: Any) -> np.ndarray:
    """Return a tensor's numbers for comparing; NumPy's own float32 where it has no such dtype."""
    array = ops.convert_to_numpy(tensor)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _register(output_class: type[ModelOutput]) -> None:
    """Tell Keras what an output is made of, so that it finds the tensors in it and hands on an output of that class."""

    def flatten(output: ModelOutput) -> tuple[list[Any], tuple[str, ...], tuple[str, ...]]:
        return list(output.values()), tuple(output), tuple(output)

    def unflatten(names: tuple[str, ...], values: Any) -> ModelOutput:
        return output_class(zip(names, values, strict=True))

    optree.register_pytree_node(output_class, flatten, unflatten, namespace="keras")
    if keras.backend.backend() == "jax":
        import jax

        jax.tree_util.register_pytree_node(
            output_class, lambda output: (list(output.values()), tuple(output)), unflatten
        )


for _output_class in OUTPUT_CLASSES:
    _register(_output_class)

# What a tokenizer returns goes into `fit`, `evaluate` and `predict` as it is; Keras makes plain dicts of its batches.
optree.register_pytree_node(
    BatchEncoding,
    lambda batch: (list(batch.values()), tuple(batch), tuple(batch)),
    lambda names, columns: dict(zip(names, columns, strict=True)),
    namespace="keras",
)
