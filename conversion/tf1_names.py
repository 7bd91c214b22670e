"""What the authors' own TensorFlow 1 code calls each family's tensors.

The Hub's names were once made from these variable scopes, so most of them differ in separators alone. Where the scopes
are: google-research, `mobilebert/modeling.py`, `run_pretraining.py`, `run_classifier.py` and `run_squad.py`;
yitu-opensource/ConvBert, `model/modeling.py`, `run_pretraining.py` and `finetune/`. RemBERT's code is not public; its
encoder's names are those that the Hub's loader of the published checkpoint reads.
"""

from __future__ import annotations

from .rules import ForeignNames, Rule

_SCOPES = {"mobilebert": "bert", "rembert": "bert", "convbert": "electra"}


def _scope(module: str) -> str:
    """Return the authors' variable scope of a module of the Hub."""
    base, dot, rest = module.partition(".")
    scope = _SCOPES.get(base, base) + dot + rest
    return scope.replace(".layer.{i}.", ".layer_{i}.").replace(".ffn.{j}.", ".ffn_layer_{j}.").replace(".", "/")


def _dense(*modules: str) -> tuple[Rule, ...]:
    """Return the rules of dense maps, whose kernel is `[in, out]` where the Hub has `[out, in]`."""
    kernels = [Rule(f"{module}.weight", f"{_scope(module)}/kernel", "reversed") for module in modules]
    return (*kernels, *(Rule(f"{module}.bias", f"{_scope(module)}/bias") for module in modules))


def _norms(*parents: str, scope: str = "LayerNorm") -> tuple[Rule, ...]:
    """Return the rules of the norm in each of some modules."""
    ends = (("weight", "gamma"), ("bias", "beta"))
    return tuple(
        Rule(f"{parent}.LayerNorm.{hub}", f"{_scope(parent)}/{scope}/{end}") for parent in parents for hub, end in ends
    )


def _embeddings(family: str) -> Rule:
    """Return the rule of the tables of words, positions and token types."""
    return Rule(f"{family}.embeddings.{{name}}_embeddings.weight", f"{_SCOPES[family]}/embeddings/{{name}}_embeddings")


# BERT's heads of fine-tuning, which these families' code took over: their weights are `[out, in]` as on the Hub.
_FINE_TUNED_AS_BERT = (
    Rule("classifier.weight", "output_weights"),
    Rule("classifier.bias", "output_bias"),
    Rule("qa_outputs.weight", "cls/squad/output_weights"),
    Rule("qa_outputs.bias", "cls/squad/output_bias"),
)

_OF_TRAINING = (
    (r"/(adam_[mv]|Adam(_1)?|(AdamWeightDecay|LAMB)Optimizer(_1)?)$", "since it is the optimizer's memory"),
    (r"^(global_step|beta[12]_power)$", "since it counts the training's steps"),
)

_MOBILEBERT_NORMS = (
    "mobilebert.embeddings",
    "mobilebert.encoder.layer.{i}.bottleneck.{name}",
    "mobilebert.encoder.layer.{i}.attention.output",
    "mobilebert.encoder.layer.{i}.ffn.{j}.output",
    "mobilebert.encoder.layer.{i}.output",
    "mobilebert.encoder.layer.{i}.output.bottleneck",
)

_MOBILEBERT = ForeignNames(
    rules=(
        _embeddings("mobilebert"),
        *_dense(
            "mobilebert.embeddings.embedding_transformation",
            "mobilebert.encoder.layer.{i}.bottleneck.{name}.dense",
            "mobilebert.encoder.layer.{i}.attention.self.{name}",
            "mobilebert.encoder.layer.{i}.attention.output.dense",
            "mobilebert.encoder.layer.{i}.ffn.{j}.intermediate.dense",
            "mobilebert.encoder.layer.{i}.ffn.{j}.output.dense",
            "mobilebert.encoder.layer.{i}.intermediate.dense",
            "mobilebert.encoder.layer.{i}.output.dense",
            "mobilebert.encoder.layer.{i}.output.bottleneck.dense",
            "mobilebert.pooler.dense",
            "cls.predictions.transform.dense",
        ),
        *_norms(*_MOBILEBERT_NORMS, "cls.predictions.transform"),
        # The authors' name of NoNorm.
        *_norms(*_MOBILEBERT_NORMS, scope="FakeLayerNorm"),
        Rule("cls.predictions.bias", "cls/predictions/output_bias"),
        Rule("cls.predictions.dense.weight", "cls/predictions/extra_output_weights", "reversed"),
        Rule("cls.seq_relationship.weight", "cls/seq_relationship/output_weights"),
        Rule("cls.seq_relationship.bias", "cls/seq_relationship/output_bias"),
        *_FINE_TUNED_AS_BERT,
    ),
    left_out=(
        *_OF_TRAINING,
        (r"^teacher/", "since it is the teacher's of a distillation, a model of its own"),
        (r"^hidden_distill_\d+/", "since it is of a distillation's loss"),
        (
            r"/MobileBert(Act|Weight)FakeQuantWithMinMaxVars",
            "since it is the range of a quantisation simulated in training",
        ),
    ),
)

_REMBERT = ForeignNames(
    rules=(
        _embeddings("rembert"),
        *_dense(
            "rembert.encoder.embedding_hidden_mapping_in",
            "rembert.encoder.layer.{i}.attention.self.{name}",
            "rembert.encoder.layer.{i}.attention.output.dense",
            "rembert.encoder.layer.{i}.intermediate.dense",
            "rembert.encoder.layer.{i}.output.dense",
            "rembert.pooler.dense",
        ),
        *_norms("rembert.embeddings", "rembert.encoder.layer.{i}.attention.output", "rembert.encoder.layer.{i}.output"),
        *_FINE_TUNED_AS_BERT,
    ),
    left_out=(
        *_OF_TRAINING,
        (
            r"^cls/(?!squad/)|output_embedding",
            "since it is the pretraining head's, of which the authors published neither code nor a description",
        ),
    ),
)

_CONVBERT_ATTENTION = "convbert.encoder.layer.{i}.attention.self"
_CONVBERT_CONVOLUTION = f"{_CONVBERT_ATTENTION}.key_conv_attn_layer"
_CONVBERT_SCOPE = _scope(_CONVBERT_ATTENTION)

_CONVBERT = ForeignNames(
    rules=(
        _embeddings("convbert"),
        *_dense(
            "convbert.embeddings_project",
            f"{_CONVBERT_ATTENTION}.query",
            f"{_CONVBERT_ATTENTION}.key",
            f"{_CONVBERT_ATTENTION}.value",
            "convbert.encoder.layer.{i}.attention.output.dense",
            "convbert.encoder.layer.{i}.intermediate.dense",
            "convbert.encoder.layer.{i}.output.dense",
            "generator_predictions.dense",
        ),
        Rule(
            f"{_CONVBERT_ATTENTION}.conv_kernel_layer.weight", f"{_CONVBERT_SCOPE}/conv_attn_kernel/kernel", "reversed"
        ),
        Rule(f"{_CONVBERT_ATTENTION}.conv_kernel_layer.bias", f"{_CONVBERT_SCOPE}/conv_attn_kernel/bias"),
        Rule(f"{_CONVBERT_ATTENTION}.conv_out_layer.weight", f"{_CONVBERT_SCOPE}/conv_attn_point/kernel", "reversed"),
        Rule(f"{_CONVBERT_ATTENTION}.conv_out_layer.bias", f"{_CONVBERT_SCOPE}/conv_attn_point/bias"),
        Rule(
            f"{_CONVBERT_CONVOLUTION}.depthwise.weight",
            f"{_CONVBERT_SCOPE}/conv_attn_key/depthwise_kernel",
            "depthwise",
        ),
        Rule(
            f"{_CONVBERT_CONVOLUTION}.pointwise.weight", f"{_CONVBERT_SCOPE}/conv_attn_key/pointwise_kernel", "reversed"
        ),
        Rule(f"{_CONVBERT_CONVOLUTION}.bias", f"{_CONVBERT_SCOPE}/conv_attn_key/bias", "column"),
        # A grouped dense map's kernel is `[groups, in, out]` on the Hub too.
        Rule("convbert.encoder.layer.{i}.{name}.dense.weight", "electra/encoder/layer_{i}/{name}/g_dense/kernel"),
        Rule("convbert.encoder.layer.{i}.{name}.dense.bias", "electra/encoder/layer_{i}/{name}/g_dense/bias"),
        *_norms(
            "convbert.embeddings",
            "convbert.encoder.layer.{i}.attention.output",
            "convbert.encoder.layer.{i}.output",
            "generator_predictions",
        ),
        Rule("generator_lm_head.bias", "generator_predictions/output_bias"),
        # The authors' one task that classifies tokens.
        Rule("classifier.weight", "task_specific/chunk/dense/kernel", "reversed"),
        Rule("classifier.bias", "task_specific/chunk/dense/bias"),
    ),
    left_out=(
        *_OF_TRAINING,
        (r"^discriminator_predictions/", "since it tells replaced words, and the Hub has no ConvBERT that does"),
        (r"^task_specific/(?!chunk/)", "since the Hub's ConvBERT puts the heads of this task together in another way"),
    ),
)

TF1: dict[str, ForeignNames] = {"mobilebert": _MOBILEBERT, "rembert": _REMBERT, "convbert": _CONVBERT}

# With a generator beside the encoder, the head that scores words is the generator's and fits no other encoder.
TF1_BESIDE_A_GENERATOR = ForeignNames(
    rules=_CONVBERT.rules,
    left_out=(
        *_CONVBERT.left_out,
        (r"^generator(_predictions)?/", "since it is the generator's, a smaller model that only served the training"),
    ),
)
