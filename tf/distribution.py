"""Where Keras computes: one device, or several by a strategy of `tf.distribute`."""

from __future__ import annotations

from functools import cache
from typing import Any

import tensorflow as tf

from ..core.training.options import TrainingOptions
from ..errors import InputError
from .inference import find_device


def strategy_of(options: TrainingOptions) -> Any:
    """Return the strategy that options ask for, one and the same in a process.

    Raises:
        InputError: there is no such device.
    """
    name = "tpu" if options.device == "tpu" else options.strategy
    if name == "tpu":
        return _tpu_strategy()
    # Workers must be connected before anything looks at the devices.
    strategy = _MADE_BY[name]()
    find_device(options.device)
    return strategy


@cache
def _mirrored_strategy() -> Any:
    return tf.distribute.MirroredStrategy()


@cache
def _multiworker_strategy() -> Any:
    return tf.distribute.MultiWorkerMirroredStrategy()


@cache
def _tpu_strategy() -> Any:
    # On a TPU's own machine, TPU_NAME is "local" or not set.
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect("local")
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(
            f"TensorFlow sees no TPU here ({type(error).__name__}): run on a TPU's own machine, with the package "
            "tensorflow-tpu, or take another device."
        ) from error


_MADE_BY = {
    "default": tf.distribute.get_strategy,
    "mirrored": _mirrored_strategy,
    "multiworker": _multiworker_strategy,
}


def check_strategy(strategy: Any, options: TrainingOptions) -> None:
    """Raise where a strategy cannot compute as options ask for.

    Raises:
        InputError: saying what does not go together.
    """
    if strategy.num_replicas_in_sync == 1 or isinstance(strategy, tf.distribute.TPUStrategy):
        return
    devices = strategy.extended.worker_devices
    if options.compile and (len(devices) > 1 or "CPU" in devices[0]):
        raise InputError(
            "Where several devices share a step's rows, XLA compiles for GPUs with a process each: take "
            "strategy='multiworker' and start one for each GPU, or do without compile."
        )
    if options.steps_per_execution > 1:
        # TensorFlow fails on an optimizer of several devices inside a loop.
        raise InputError(
            f"steps_per_execution is {options.steps_per_execution}; where several devices that are no TPU share a "
            "step's rows, it must be 1."
        )


def process_of(strategy: Any) -> int:
    """Return this process's number among those of a strategy; the first one writes."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_id is None:
        return 0
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    return int(resolver.task_id) + (chiefs if resolver.task_type == "worker" else 0)


def is_multiworker(strategy: Any) -> bool:
    """Say whether several processes share a step's rows."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def any_of(strategy: Any, flag: bool) -> bool:
    """Say whether a flag is up in any of the processes; all of them call this together."""
    flags = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(int(flag)))
    return bool(strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None) > 0)
