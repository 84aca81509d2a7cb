"""Devices of TensorFlow by the names that fo-onnx gives them, and the strategy in whose scope a model was made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from fo_onnx.contracts.exporter import Devices
from fo_onnx.errors import DeviceError

from .detect import is_graph_function, is_layer, is_trackable, layers_of

_KINDS = {"cpu": "CPU", "cuda": "GPU", "tpu": "TPU"}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_DEVICE = re.compile(r"(CPU|GPU|TPU):(\d+)$", re.IGNORECASE)


def logical_devices() -> list[str]:
    """Return the devices that TensorFlow has, by our names: ``cpu``, ``cpu:1``, ``cuda:0``, ``tpu:0``."""
    return list(filter(None, (_name_of(d.name) for d in tf.config.list_logical_devices())))


def tf_device(name: str) -> str:
    """Return TensorFlow's name of a device.

    Raises:
        DeviceError: It is not there; the message lists those that are.
    """
    kind, _, index = name.partition(":")
    place, devices = f"{_KINDS.get(kind, kind)}:{index or 0}", logical_devices()
    if _name_of(place) not in devices:
        advice = "" if kind in _KINDS else f" TensorFlow knows {', '.join(_KINDS)}."
        if kind == "tpu":
            advice = " A TPU is there once tf.tpu.experimental.initialize_tpu_system was called."
        raise DeviceError(
            f"device={name!r} was asked for, but TensorFlow {tf.__version__} has only {', '.join(devices)} here.{advice}"
        )
    return f"/{place}"


def home_of(model: Any) -> str:
    """Return the device of the first weight of a model, or where TensorFlow would put one."""
    places = (_name_of(value.device) for value in tf_variables(model))
    accelerators = (d for d in logical_devices() if not d.startswith("cpu"))
    return next(filter(None, places), None) or next(accelerators, "cpu")


def strategy_of(model: Any) -> Any:
    """Return the ``tf.distribute`` strategy in whose scope the weights of a model were made, or ``None``."""
    strategies = (getattr(value, "distribute_strategy", None) for value in tf_variables(model))
    return next((s for s in strategies if s is not None), None)


def devices_of(strategy: Any) -> tuple[str, ...]:
    """Return the devices that the replicas of a strategy are on, in their order."""
    return tuple(filter(None, map(_name_of, strategy.extended.worker_devices)))


def require_devices(strategy: Any, asked: Devices, model_name: str) -> None:
    """Raise a `DeviceError` if several devices were asked for and they are not those of the strategy."""
    if isinstance(asked, str):
        return
    # A device that is not there is named first.
    names = [tf_device(n) for n in asked]
    advice = (
        "Make the model (or load it) in the scope of a strategy over them: "
        f"with tf.distribute.MirroredStrategy({names}).scope(): …"
    )
    if strategy is None:
        raise DeviceError(
            f"device={list(asked)}: several devices were asked for, and the weights of {model_name} belong to no tf.distribute "
            f"strategy that could spread batches over them. {advice}"
        )
    if set(asked) != set(devices_of(strategy)):
        raise DeviceError(
            f"device={list(asked)} was asked for, but {model_name} was made in the scope of a {type(strategy).__name__} over "
            f"{', '.join(devices_of(strategy))}; say device='auto' to run on these. {advice}"
        )


def tpu_of(model: Any) -> str | None:
    """Return which part of a model is on a TPU, its strategy or its weights; ``None`` if nothing is."""
    strategy = strategy_of(model)
    if "TPUStrategy" in type(strategy).__name__:
        return f"a {type(strategy).__name__}"
    device = next((v.device for v in tf_variables(model) if "TPU" in str(v.device).upper()), None)
    return None if device is None else f"the device {_name_of(device) or device}"


def tf_variables(model: Any) -> Iterator[Any]:
    """Yield the TensorFlow variables of a model."""
    # A module and a SavedModel list them; a function has those of its graph and of the layers at hand.
    if is_trackable(model):
        yield from getattr(model, "variables", ())
        return
    if is_graph_function(model) and hasattr(model, "variables"):
        yield from model.variables
    for layer in layers_of(model)[: 1 if is_layer(model) else None]:
        yield from (v.value for v in layer.variables)  # `weights` leaves random states out


def _name_of(name: str) -> str | None:
    match = _DEVICE.search(str(name))
    if match is None:
        return None
    kind, index = _NAMES[match[1].upper()], match[2]
    return "cpu" if (kind, index) == ("cpu", "0") else f"{kind}:{index}"
