"""What models return: one class per kind of output, shared by both frameworks.

An output is a `dict` that holds only the fields that are present, in the order in which its class declares them. A
field is reached by name (`out.logits`, `out["logits"]`) or by its place among the present ones (`out[0]`). A declared
field that is absent reads as `None` by attribute. Being a plain mapping underneath, an output passes through
`tf.function`, Keras's `fit` and `predict`, `torch.compile` and data-parallel wrappers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np


class ModelOutput(dict[str, Any]):
    """Base of all outputs: a dict of the present fields, in declared order.

    Example:
        >>> out = MaskedLMOutput(logits=[0.5, 1.5], loss=None)
        >>> out.logits is out["logits"] is out[0]
        True
        >>> out.loss is None, "loss" in out
        (True, False)
    """

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.fields = tuple(name for name in cls.__annotations__ if name != "fields")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # A positional mapping or pairs are what tree libraries rebuild a mapping from.
        given = dict(*args, **kwargs)
        unknown = [name for name in given if name not in self.fields]
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no field {unknown[0]!r}; its fields are {', '.join(self.fields)}"
            )
        super().__init__((name, given[name]) for name in self.fields if given.get(name) is not None)

    def __getattr__(self, name: str) -> Any:
        if name in self.fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}; its fields are {', '.join(self.fields)}")

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the present values in declared order."""
        return tuple(dict.__getitem__(self, name) for name in self.fields if name in self)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class BaseModelOutput(ModelOutput):
    """An encoder's output.

    Fields:
        last_hidden_state: `[batch, length, hidden]`.
        hidden_states: the embeddings and each layer's output, each `[batch, length, hidden]`; when asked for.
        attentions: each layer's probabilities `[batch, heads, length, length]`; when asked for.
    """

    last_hidden_state: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class BaseModelOutputWithPooling(ModelOutput):
    """An encoder's output with a vector for the whole sequence.

    Fields:
        last_hidden_state: `[batch, length, hidden]`.
        pooler_output: `[batch, hidden]`, from the first token; absent where the model has no pooler.
        hidden_states, attentions: as in `BaseModelOutput`.
    """

    last_hidden_state: Any
    pooler_output: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """The output of an encoder that can also be a decoder.

    Fields:
        last_hidden_state, pooler_output, hidden_states, attentions: as in `BaseModelOutputWithPooling`. A decoder that
            goes on from a cache attends to its whole length, `[batch, heads, length, max_length]`.
        past_key_values: the keys and values of all layers so far, a `KeyValueCache`; when asked for.
        cross_attentions: each layer's probabilities over an encoder's positions, `[batch, heads, length, encoder's
            length]`; when asked for, of a decoder that was given an encoder's output.
    """

    last_hidden_state: Any
    pooler_output: Any
    hidden_states: tuple[Any, ...] | None
    past_key_values: Any
    attentions: tuple[Any, ...] | None
    cross_attentions: tuple[Any, ...] | None


class CausalLMOutputWithCrossAttentions(ModelOutput):
    """Scores for the next token after each position: `logits` `[batch, length, vocab]`.

    `loss` is a scalar, if labels were given; the other fields are those of
    `BaseModelOutputWithPoolingAndCrossAttentions`.
    """

    loss: Any
    logits: Any
    past_key_values: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None
    cross_attentions: tuple[Any, ...] | None


class MaskedLMOutput(ModelOutput):
    """Scores for each position's token: `logits` `[batch, length, vocab]`; `loss`, a scalar, if labels were given."""

    loss: Any
    logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class NextSentencePredictorOutput(ModelOutput):
    """Whether the second sentence follows the first: `logits` `[batch, 2]`, where index 0 means that it does."""

    loss: Any
    logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class SequenceClassifierOutput(ModelOutput):
    """Scores for a whole sequence: `logits` `[batch, num_labels]`."""

    loss: Any
    logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class MultipleChoiceModelOutput(ModelOutput):
    """Scores of the choices: `logits` `[batch, choices]`."""

    loss: Any
    logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class TokenClassifierOutput(ModelOutput):
    """Scores for each token: `logits` `[batch, length, num_labels]`."""

    loss: Any
    logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class QuestionAnsweringModelOutput(ModelOutput):
    """Scores of each position as the answer's start and end: `start_logits`, `end_logits`, each `[batch, length]`."""

    loss: Any
    start_logits: Any
    end_logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


class MobileBertForPreTrainingOutput(ModelOutput):
    """Both pretraining heads.

    Fields:
        loss: the sum of the two losses, a scalar; when both kinds of labels were given.
        prediction_logits: `[batch, length, vocab]`.
        seq_relationship_logits: `[batch, 2]`.
        hidden_states, attentions: as in `BaseModelOutput`.
    """

    loss: Any
    prediction_logits: Any
    seq_relationship_logits: Any
    hidden_states: tuple[Any, ...] | None
    attentions: tuple[Any, ...] | None


OUTPUT_CLASSES: tuple[type[ModelOutput], ...] = (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    BaseModelOutputWithPoolingAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    MaskedLMOutput,
    NextSentencePredictorOutput,
    SequenceClassifierOutput,
    MultipleChoiceModelOutput,
    TokenClassifierOutput,
    QuestionAnsweringModelOutput,
    MobileBertForPreTrainingOutput,
)


@dataclass
class Trace:
    """One forward and backward pass of a model of either framework, as NumPy arrays.

    Attributes:
        outputs: each output by name; members of a tuple as `hidden_states.0`, `attentions.2` and so on.
        loss: the loss, when the inputs held labels.
        gradients: the loss's gradient by each parameter, under the parameter's Hub name and in the Hub's layout.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    loss: float | None = None
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
