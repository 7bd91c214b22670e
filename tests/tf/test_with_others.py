"""What people already use with Keras works with the models: callbacks, and a `train_step` of one's own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import isobert

Make = Callable[..., Any]


def learner(make_model: Make) -> Any:
    """Return a float32 model of two classes without dropout."""
    fields = {"num_labels": 2, "problem_type": None, "num_hidden_layers": 1}
    fields |= dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    return make_model("squeezebert", "ForSequenceClassification", 4, "float32", **fields)


def data(rows: int = 64, seed: int = 0) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(2, 20, (rows, 8))
    return {"input_ids": ids, "labels": (ids[:, 1] > 10).astype("int64")}


def test_early_stopping_ends_a_fit_and_puts_the_best_weights_back(make_model: Make) -> None:
    model = learner(make_model)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    held_out = data(32, 1)
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10.0, restore_best_weights=True)
    history = model.fit(data(), validation_data=held_out, epochs=5, verbose=0, callbacks=[stopping]).history
    assert len(history["val_loss"]) == 2
    assert history["val_loss"][1] != history["val_loss"][0]
    assert model.evaluate(held_out, verbose=0) == pytest.approx(history["val_loss"][0], rel=1e-5)


def test_checkpoints_are_written_in_keras_forms_and_open_again(make_model: Make, tmp_path: Path) -> None:
    model = learner(make_model)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "model.keras", monitor="loss", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
    ]
    losses = model.fit(data(), epochs=2, verbose=0, callbacks=callbacks).history["loss"]
    assert losses[1] < losses[0]  # so the last is the best
    loaded = keras.models.load_model(tmp_path / "model.keras")
    weights = learner(make_model)
    weights.load_weights(tmp_path / "2.weights.h5")
    for one in (loaded, weights):
        for mine, other in zip(one.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    weights.load_weights(tmp_path / "1.weights.h5")
    assert np.abs(weights.get_weights()[0] - model.get_weights()[0]).max() > 0


def test_rates_are_scheduled_lowered_and_logged_by_callbacks(make_model: Make, tmp_path: Path) -> None:
    model = learner(make_model)
    model.compile(keras.optimizers.SGD(0.5), jit_compile=False)
    callbacks = [
        # No loss is lower than before by so much, so each epoch after the first lowers the rate.
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100.0),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    history = model.fit(data(), epochs=3, verbose=0, callbacks=callbacks).history
    assert history["learning_rate"] == pytest.approx([0.5, 0.5, 0.25])
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == pytest.approx(history["loss"], rel=1e-6)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
    history = model.fit(data(), epochs=2, verbose=0, callbacks=[scheduler]).history
    assert history["learning_rate"] == pytest.approx([0.1, 0.05])


def test_a_backup_lets_a_fit_that_broke_off_go_on_where_it_was(make_model: Make, tmp_path: Path) -> None:
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    def fit(*callbacks: Any) -> tuple[list[int], list[np.ndarray]]:
        model = learner(make_model)
        model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
        history = model.fit(data(), epochs=2, verbose=0, shuffle=False, callbacks=list(callbacks))
        return history.epoch, model.get_weights()

    with pytest.raises(KeyboardInterrupt):
        fit(keras.callbacks.BackupAndRestore(tmp_path), Breaks())
    epochs, weights = fit(keras.callbacks.BackupAndRestore(tmp_path))
    all_epochs, expected = fit()
    assert (epochs, all_epochs) == ([1], [0, 1])
    for mine, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def adversarial(base: type[Any], rate: float) -> type[Any]:
    """Return a subclass that learns from word vectors shifted to where the loss rises (Miyato et al. 2017)."""

    class Adversarial(base):  # type: ignore[misc]
        def train_step(self, data: Any) -> dict[str, Any]:
            inputs = dict(data[0] if isinstance(data, tuple) else data)
            table = self.get_input_embeddings().embeddings
            words = keras.ops.take(table, inputs.pop("input_ids"), axis=0)
            with tf.GradientTape() as tape:
                tape.watch(words)
                loss = self(inputs, inputs_embeds=words, training=True).loss
            shift = rate * tf.math.l2_normalize(tape.gradient(loss, words), axis=(1, 2))
            with tf.GradientTape() as tape:
                found = self(inputs, inputs_embeds=words + tf.stop_gradient(shift), training=True).loss
            variables = [variable for variable in self.trainable_variables if variable is not table]
            gradients = tape.gradient(found, [variable.value for variable in variables])
            self.optimizer.apply(gradients, variables)
            return {"loss": found, "clean_loss": loss}

    return Adversarial


def test_a_train_step_of_ones_own_takes_the_place_of_keras(make_model: Make, tmp_path: Path) -> None:
    plain = learner(make_model)
    model = adversarial(type(plain), 0.05)(plain.config)
    model.set_weights(plain.get_weights())
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    history = model.fit(data(), epochs=20, batch_size=16, verbose=0).history
    assert all(found > clean for found, clean in zip(history["loss"], history["clean_loss"], strict=True))
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    np.testing.assert_array_equal(model.get_input_embeddings().embeddings, plain.get_input_embeddings().embeddings)
    # What it learnt is a plain checkpoint.
    model.save_pretrained(tmp_path)
    opened = isobert.TFAutoModelForSequenceClassification.from_pretrained(tmp_path)
    inputs = data(8, 2)["input_ids"]
    np.testing.assert_allclose(opened(inputs).logits, model(inputs).logits, atol=1e-6)


def test_a_model_says_whether_layers_are_computed_again(make_model: Make) -> None:
    model = learner(make_model)
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
