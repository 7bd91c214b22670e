"""What every PyTorch model of the library does: open and save checkpoints, resize its vocabulary, trace itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..conversion.checkpoint import Checkpoint, LazyTensor, LoadReport, match_tensors, open_checkpoint, write_checkpoint
from ..conversion.names import family_names
from ..core.config import PretrainedConfig
from ..core.outputs import OUTPUT_CLASSES, ModelOutput, Trace
from ..errors import ConfigError, InputError, OptimizedModelError
from .inputs import check_shape
from .layers import Embedding, Encoder, resized

logger = logging.getLogger("isobert")


class PreTrainedModel(nn.Module):
    """Base of all models. A model is made from a config, `cls(config)`, with new weights, or by `from_pretrained`.

    New dense and embedding weights are drawn from a normal distribution with the standard deviation
    `config.initializer_range`, cut off at two deviations, as in Google's code; biases are zero and norms the identity.

    Args:
        config: the family's config. The model keeps it as `self.config`.

    Raises:
        ConfigError: it is another family's config, or not legal.
    """

    config_class: ClassVar[type[PretrainedConfig]] = PretrainedConfig
    base_model_prefix: ClassVar[str] = ""

    # What `pt.optimize` did to this model, in sentences; empty if it is as it was made.
    optimizations: tuple[str, ...] = ()

    def __init__(self, config: PretrainedConfig) -> None:
        if not isinstance(config, self.config_class):
            raise ConfigError(
                f"{type(self).__name__} takes a {self.config_class.__name__}; it got a {type(config).__name__}."
            )
        config.validate()
        super().__init__()
        self.config = config

    def __call__(self, *args: Any, return_dict: bool | None = None, **kwargs: Any) -> Any:
        """Call the model with the arguments of `forward`.

        Args:
            args: arguments in order.
            return_dict: False returns the output's values as a tuple; code that is written for transformers asks so.
            kwargs: arguments by name.
        """
        output = super().__call__(*args, **kwargs)
        return output.to_tuple() if return_dict is False else output

    # The parts that a family supplies for the heads of `heads.py`.

    def make_base_model(self, add_pooling_layer: bool) -> PreTrainedModel:
        """Return a new encoder for a model with a head."""
        raise NotImplementedError

    def make_lm_head(self) -> nn.Module:
        """Return a new head that scores words."""
        raise NotImplementedError

    # Parts and parameters.

    @property
    def base_model(self) -> PreTrainedModel:
        """The encoder: of a model with a head the part below it, of a bare encoder itself."""
        return getattr(self, self.base_model_prefix, self)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        return next(self.parameters()).dtype

    def num_parameters(self, trainable_only: bool = False) -> int:
        """Return the number of parameters; what is shared counts once."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not trainable_only)

    def get_input_embeddings(self) -> Embedding:
        """Return the table of word embeddings."""
        return self.base_model.embeddings.word_embeddings  # type: ignore[union-attr, return-value]

    def set_input_embeddings(self, embeddings: nn.Embedding) -> None:
        """Replace the table of word embeddings; a head that shares it shares the new one.

        Raises:
            InputError: it is not `[vocab_size, embedding_size]`; `resize_token_embeddings` changes the number of words.
        """
        check_shape("The new table of word embeddings", embeddings.weight, self.get_input_embeddings().weight.shape)
        self.base_model.embeddings.word_embeddings = embeddings  # type: ignore[union-attr]
        self.tie_weights()

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

        New vectors are drawn as for a new model. Make the optimizer afterwards: the tables are new parameters.

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
        embeddings.weight = resized(embeddings.weight, config.vocab_size, config.initializer_range)
        embeddings.num_embeddings = config.vocab_size
        head = self.get_lm_head()
        if head is not None:
            head.resize(config.vocab_size)
        self.tie_weights()
        self.config = self.base_model.config = config
        return embeddings

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return any(module.gradient_checkpointing for module in self.modules() if isinstance(module, Encoder))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """Trade time for memory in training: keep each layer's input alone, and compute the rest of it again.

        Args:
            gradient_checkpointing_kwargs: what transformers' `Trainer` passes. There is one way to do this here, which
                is `{"use_reentrant": False}`.

        Raises:
            InputError: another way is asked for.
        """
        if gradient_checkpointing_kwargs and dict(gradient_checkpointing_kwargs) != {"use_reentrant": False}:
            raise InputError(
                f"gradient_checkpointing_kwargs is {gradient_checkpointing_kwargs!r}; leave it out, or give "
                '{"use_reentrant": False}.'
            )
        self._set_gradient_checkpointing(True)

    def gradient_checkpointing_disable(self) -> None:
        """Keep everything that the backward pass needs."""
        self._set_gradient_checkpointing(False)

    def _set_gradient_checkpointing(self, value: bool) -> None:
        for module in self.modules():
            if isinstance(module, Encoder):
                module.gradient_checkpointing = value

    def train(self, mode: bool = True) -> Self:
        """Set training mode (dropout on), or with False evaluation mode.

        Raises:
            OptimizedModelError: an optimized model is to be trained.
        """
        if mode:
            self._refuse_if_optimized("trained")
        return super().train(mode)

    def _refuse_if_optimized(self, what: str) -> None:
        if self.optimizations:
            raise OptimizedModelError(
                f"An optimized {type(self).__name__} cannot be {what}; use the model that it was made of."
            )

    # Checkpoints.

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        config: PretrainedConfig | None = None,
        dtype: str | torch.dtype | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **config_overrides: Any,
    ) -> Any:
        """Open a checkpoint: a folder, or a repository of the Hub.

        The checkpoint may be of the bare encoder or of any head; what it lacks is newly initialised, and what is
        missing, left over or of another shape is logged as a warning under `isobert`, by name.

        A `model.safetensors` in the dtype that is asked for is mapped into memory, not read, and the parameters lie in
        it until they are altered. It may be replaced by another file, but must not itself be overwritten or cut short.

        Args:
            name_or_path: a folder with `config.json` and weights, or a Hub name such as `google/mobilebert-uncased`.
            config: used in place of the checkpoint's `config.json`.
            dtype: of the parameters: "float32", "bfloat16" and so on; None is `torch.get_default_dtype()`, "auto" the
                checkpoint's own.
            ignore_mismatched_sizes: initialise a tensor of another shape anew, instead of raising.
            output_loading_info: also return the `LoadReport`.
            config_overrides: fields of the config to replace, such as `num_labels=3`.

        Returns:
            The model in evaluation mode (dropout off); with `output_loading_info`, a pair of it and the report.

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
            wanted_dtype = _resolve_dtype(dtype, checkpoint)
            # On the meta device a model has shapes and no memory, so that each tensor is in memory once.
            with torch.device("meta"):
                model = cls(config)
            if model.dtype != wanted_dtype:
                model = model.to(wanted_dtype)
            report = model._load(checkpoint, ignore_mismatched_sizes)
        if report:
            logger.warning("%s from %s:\n%s", cls.__name__, name_or_path, report)
        model.eval()
        return (model, report) if output_loading_info else model

    def _load(self, checkpoint: Checkpoint, ignore_mismatched_sizes: bool) -> LoadReport:
        """Give a model on the meta device its weights: the checkpoint's, and new ones where it has none."""
        # `named_parameters` names a tied parameter once.
        wanted = dict(self.named_parameters())
        plan = match_tensors(
            {name: tuple(parameter.shape) for name, parameter in wanted.items()},
            checkpoint,
            family_names(self.config.model_type),
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        for owner in {name.rpartition(".")[0] for name in wanted if name not in plan.sources}:
            module = self.get_submodule(owner)
            module.to_empty(device="cpu", recurse=False)
            module.reset_parameters()  # type: ignore[operator]
        dtype = self.dtype
        modules = dict(self.named_modules())
        for name, source in plan.sources.items():
            # Converted, a tensor needs memory of its own, and what it was converted from should need none.
            as_it_is = checkpoint.dtype(source) == str(dtype).removeprefix("torch.")
            tensor = _to_tensor(checkpoint.view(source) if as_it_is else checkpoint.read(source)).to(dtype)
            owner, _, leaf = name.rpartition(".")
            setattr(modules[owner], leaf, nn.Parameter(tensor, wanted[name].requires_grad))
        self.tie_weights()
        return plan.report

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
        tensors = {name: _to_lazy(parameter) for name, parameter in self.named_parameters()}
        write_checkpoint(folder, tensors, max_shard_size=max_shard_size)
        self.config.for_checkpoint(type(self).__name__, str(self.dtype).removeprefix("torch.")).save_pretrained(folder)

    @property
    def _keys_to_ignore_on_save(self) -> list[str]:
        """Names that a checkpoint leaves out, since each shares its tensor with a name before it.

        Transformers' `Trainer` asks for them when it has loaded a checkpoint that lacks them.
        """
        written = {name for name, _ in self.named_parameters()}
        return [name for name, _ in self.named_parameters(remove_duplicate=False) if name not in written]

    # Comparison with another framework.

    def trace(self, inputs: Mapping[str, np.ndarray], gradients: bool = True) -> Trace:
        """Run the model on NumPy arrays, without dropout, and return everything it computes as NumPy arrays.

        Outputs, hidden states, loss and gradients come from one pass with the fused attention; the attentions, which
        that does not yield, from a second.

        Args:
            inputs: arguments of `forward` by name, labels among them; floating ones are taken to the model's dtype.
            gradients: whether to return the loss's gradients (none without labels). A parameter that the loss does not
                depend on has a gradient of zeros; one that is not trained has none.
        """
        tensors: dict[str, Any] = {
            name: _to_tensor(np.asarray(array)).to(self.device) for name, array in inputs.items()
        }
        tensors = {name: t.to(self.dtype) if t.is_floating_point() else t for name, t in tensors.items()}
        with evaluation(self):
            # A loss of words would stand for their scores.
            scores = {} if self.get_lm_head() is None else {"output_logits": True}
            with torch.set_grad_enabled(gradients):
                output = self(**tensors, output_hidden_states=True, output_attentions=False, **scores)
            with torch.no_grad():
                attended = self(**tensors, output_hidden_states=False, output_attentions=True)
            trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
            loss = output.get("loss")
            slopes: Iterable[Tensor | None] = ()
            if gradients and loss is not None:
                slopes = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        found = {
            name: _to_numpy(torch.zeros_like(parameter) if slope is None else slope)
            for (name, parameter), slope in zip(trained.items(), slopes, strict=False)
        }
        of_attention = {name: attended[name] for name in ("attentions", "cross_attentions") if name in attended}
        outputs = dict(_flat({**output, **of_attention}))
        return Trace(outputs, None if loss is None else float(loss.detach()), found)


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and afterwards back to what it was in every part."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _flat(outputs: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each output but loss and cache as an array; members of a tuple as `hidden_states.0` and so on."""
    for name, value in outputs.items():
        if name in ("loss", "past_key_values"):
            continue
        if isinstance(value, tuple):
            yield from ((f"{name}.{i}", _to_numpy(member)) for i, member in enumerate(value))
        else:
            yield name, _to_numpy(value)


def _resolve_dtype(dtype: str | torch.dtype | None, checkpoint: Checkpoint) -> torch.dtype:
    """Return the torch dtype that `from_pretrained` was asked for."""
    if dtype is None:
        return torch.get_default_dtype()
    if dtype == "auto":
        held = [getattr(torch, checkpoint.dtype(name), torch.int64) for name in checkpoint.names()]
        return next((kind for kind in held if kind.is_floating_point), torch.get_default_dtype())
    return floating_dtype(dtype, ' "auto"')


def floating_dtype(dtype: str | torch.dtype, others: str = "") -> torch.dtype:
    """Return the torch dtype of a name, such as "bfloat16"; `others` are names that the caller knows besides.

    Raises:
        InputError: it is no floating dtype.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f'dtype is {dtype!r}; give "float32", "float64", "bfloat16", "float16",{others} or None.')
    return found


def _to_tensor(array: np.ndarray) -> Tensor:
    """Share an array's memory; NumPy's bfloat16 is an extension that torch does not know."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_array(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers in its own dtype, bfloat16 included."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _to_lazy(tensor: Tensor) -> LazyTensor:
    """Describe a tensor for writing; it leaves its device when its turn comes."""
    return LazyTensor(tuple(tensor.shape), _to_array(tensor.new_empty(0)).dtype, lambda: _to_array(tensor))


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """Return a tensor's numbers for comparing; NumPy's own float32 where it has no such dtype."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _register(output_class: type[ModelOutput]) -> None:
    """Tell torch what an output is made of, so that `torch.export` and parallel wrappers find the tensors in it."""

    def flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
        return list(output.values()), list(output)

    def unflatten(values: Iterable[Any], names: Any) -> ModelOutput:
        return output_class(zip(names, values, strict=True))

    name = f"isobert.{output_class.__name__}"
    pytree.register_pytree_node(output_class, flatten, unflatten, serialized_type_name=name)


for _output_class in OUTPUT_CLASSES:
    _register(_output_class)
