"""TensorFlow's devices by the names that fo-onnx gives them, and the strategy that a model was made under."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from fo_onnx.errors import DeviceError
from fo_onnx.protocols import Devices

from .recognition import held_layers, is_graph_function, is_layer, is_trackable

_KINDS = {"cpu": "CPU", "cuda": "GPU", "tpu": "TPU"}
_OURS = {theirs: ours for ours, theirs in _KINDS.items()}
_DEVICE = re.compile(r"(CPU|GPU|TPU):(\d+)$", re.IGNORECASE)


def logical_devices() -> list[str]:
    """The devices that TensorFlow has, by our names: ``cpu``, ``cpu:1``, ``cuda:0``, ``tpu:0``."""
    names = (_ours(d.name) for d in tf.config.list_logical_devices())
    return [n for n in names if n is not None]


def tf_device(name: str) -> str:
    """TensorFlow's name of a device.

    Raises:
        DeviceError: It is not there; the message lists those that are.
    """
    kind, _, index = name.partition(":")
    found = logical_devices()
    if (name if kind != "cpu" or index not in ("", "0") else "cpu") not in found:
        advice = "" if kind in _KINDS else f" TensorFlow knows {', '.join(_KINDS)}."
        if kind == "tpu":
            advice = " A TPU is there once tf.tpu.experimental.initialize_tpu_system was called."
        raise DeviceError(
            f"device={name!r} was asked for, but TensorFlow {tf.__version__} has only {', '.join(found)} here.{advice}"
        )
    return f"/{_KINDS[kind]}:{index or 0}"


def home_of(model: Any) -> str:
    """Where a model's first weight is, or where TensorFlow would put one."""
    for value in tf_variables(model):
        name = _ours(value.device)
        if name is not None:
            return name
    found = logical_devices()
    return next((d for d in found if not d.startswith("cpu")), "cpu")


def strategy_of(model: Any) -> Any:
    """The ``tf.distribute`` strategy in whose scope a model's weights were made; ``None`` where there was none."""
    found = (getattr(value, "distribute_strategy", None) for value in tf_variables(model))
    return next((s for s in found if s is not None), None)


def devices_of(strategy: Any) -> tuple[str, ...]:
    """The devices that a strategy's replicas are on, in their order."""
    return tuple(n for n in map(_ours, strategy.extended.worker_devices) if n is not None)


def require_devices(strategy: Any, asked: Devices, who: str) -> None:
    """Raises a `DeviceError` unless several devices were asked for that are those of the strategy."""
    if isinstance(asked, str):
        return
    theirs = [tf_device(n) for n in asked]
    advice = (
        "Make the model (or load it) in the scope of a strategy over them: "
        f"with tf.distribute.MirroredStrategy({theirs}).scope(): …"
    )
    if strategy is None:
        raise DeviceError(
            f"device={list(asked)}: several devices were asked for, and the weights of {who} belong to no tf.distribute strategy "
            f"that could spread batches over them. {advice}"
        )
    if set(asked) != set(devices_of(strategy)):
        raise DeviceError(
            f"device={list(asked)} was asked for, but {who} was made in the scope of a {type(strategy).__name__} over "
            f"{', '.join(devices_of(strategy))}; say device='auto' to run on these. {advice}"
        )


def tpu_of(model: Any) -> str | None:
    """What of a model is on a TPU: its strategy or its weights; ``None`` where nothing is."""
    strategy = strategy_of(model)
    if "TPUStrategy" in type(strategy).__name__:
        return f"a {type(strategy).__name__}"
    device = next((v.device for v in tf_variables(model) if "TPU" in str(v.device).upper()), None)
    return None if device is None else f"the device {_ours(device) or device}"


def tf_variables(model: Any) -> Iterator[Any]:
    """The TensorFlow variables that a model holds."""
    if is_trackable(model):
        yield from getattr(model, "variables", ())
        return
    if is_graph_function(model) and hasattr(model, "variables"):
        yield from model.variables
    for layer in held_layers(model)[: 1 if is_layer(model) else None]:
        yield from (v.value for v in layer.variables)  # `weights` leaves random states out


def _ours(name: str) -> str | None:
    match = _DEVICE.search(str(name))
    if match is None:
        return None
    kind, index = _OURS[match[1].upper()], match[2]
    return "cpu" if (kind, index) == ("cpu", "0") else f"{kind}:{index}"
