"""Devices by name, as the core writes them (``cpu``, ``cuda:1``, ``tpu:0``), and where arrays go for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from fo_onnx.contracts.batch import Array, pad_rows
from fo_onnx.contracts.exporter import Devices
from fo_onnx.errors import DeviceError

from .references import is_array

_PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "tpu": "tpu"}
"""JAX's platforms by the kinds of devices; ``gpu`` is that of CUDA and of ROCm."""
_BATCH = "batch"


@dataclass(frozen=True)
class ArrayPlacement:
    """Places for weights and batches.

    Attributes:
        name: The device or devices as the core writes them.
        weights: Where weights go; ``None`` leaves them where they are.
        batches: Where batches go; ``None`` leaves that to JAX, which follows the weights.
        parts: Into how many equal parts each batch is cut.
    """

    name: str
    weights: Any = None
    batches: Any = None
    parts: int = 1

    def place_weight(self, array: Any) -> Any:
        """Return a weight in its place."""
        # One of numpy would be copied to an accelerator with every batch.
        return jax.numpy.asarray(array) if self.weights is None else jax.device_put(array, self.weights)

    def pad(self, arrays: Sequence[Array]) -> list[Array]:
        """Return the arrays of a batch, padded with its last row if it cannot be cut into equal parts."""
        return [pad_rows(a, len(a) + -len(a) % self.parts) for a in arrays]

    def place_batch(self, arrays: Sequence[Array]) -> list[Any]:
        """Return the arrays of a batch in their places. On the CPU the caller's memory may be shared, and is only read."""
        return [a if self.batches is None else jax.device_put(a, self.batches) for a in arrays]


def place(devices: Devices, weights: Iterable[Any]) -> ArrayPlacement:
    """Return where a model runs.

    Args:
        devices: ``"auto"`` for where the weights are; one device's name; or several: each batch is spread over them, and each
            gets all weights.
        weights: The model's weights.

    Raises:
        DeviceError: One is not there, or is named twice, or they are of different kinds.
    """
    if devices == "auto":
        return ArrayPlacement(", ".join(map(device_name, devices_of(weights))))
    names = (devices,) if isinstance(devices, str) else tuple(devices)
    chosen = [_find_device(n) for n in names]
    if len(chosen) == 1:
        place_there = SingleDeviceSharding(chosen[0])
        return ArrayPlacement(device_name(chosen[0]), place_there, place_there)
    # Several: each gets all weights and a part of each batch.
    kinds = sorted({d.platform for d in chosen})
    if len(set(chosen)) < len(chosen) or len(kinds) != 1:
        problem = "one is named twice" if len(kinds) == 1 else f"they are of different kinds, {' and '.join(kinds)}"
        raise DeviceError(
            f"device={list(names)}: {problem}; to spread batches over several, name different ones of one kind."
        )
    mesh = Mesh(np.array(chosen), (_BATCH,))
    return ArrayPlacement(
        ", ".join(map(device_name, chosen)),
        NamedSharding(mesh, PartitionSpec()),  # type: ignore[no-untyped-call]
        NamedSharding(mesh, PartitionSpec(_BATCH)),  # type: ignore[no-untyped-call]
        len(chosen),
    )


def devices_of(weights: Iterable[Any]) -> list[Any]:
    """Return the devices that weights are on, in order; without weights the one where JAX computes by itself."""
    # A deleted (donated) array is nowhere; running the model will say so.
    devices = {d for w in weights if is_array(w) and not w.is_deleted() for d in w.devices()}
    if devices:
        return sorted(devices, key=lambda d: (d.platform, d.id))
    return [next(iter(jax.numpy.zeros(()).devices()))]


def device_name(device: Any) -> str:
    """Return a device's name as the core writes it."""
    kind = "cuda" if device.platform == "gpu" else str(device.platform)
    index = _local_devices(device.platform).index(device) if device in _local_devices(device.platform) else device.id
    return kind if kind == "cpu" and index == 0 else f"{kind}:{index}"


def tpu_reason(devices: Iterable[Any]) -> str | None:
    """Return why a model whose weights are on these devices is not exported: one is a TPU; else ``None``."""
    tpus = sorted({f"TPU_{d.id}" for d in devices if d.platform == "tpu"})
    return f"the model lives on a TPU ({', '.join(tpus)}), where ONNX Runtime does not run" if tpus else None


def _find_device(name: str) -> Any:
    kind, _, index = name.partition(":")
    available = _local_devices(_PLATFORMS[kind]) if kind in _PLATFORMS else []
    if int(index or 0) < len(available):
        return available[int(index or 0)]
    # What JAX finds by itself, and the CPU, which is always there.
    listed = list(dict.fromkeys(map(device_name, (*jax.local_devices(), *_local_devices("cpu")))))
    if kind not in _PLATFORMS:
        advice = "The JAX runner knows cpu, cuda (or gpu) and tpu."
    elif available:
        advice = f"Say one of {', '.join(map(device_name, available))}."
    else:
        advice = "Say device='cpu', or install JAX for it: https://docs.jax.dev/en/latest/installation.html tells how."
    raise DeviceError(
        f"device={name!r} was asked for, but jax {jax.__version__} has only {', '.join(listed)}. {advice}"
    )


def _local_devices(platform: str) -> list[Any]:
    """Return the devices of a platform that this process may use."""
    try:
        return list(jax.local_devices(backend=platform))
    except RuntimeError:  # how JAX says that a platform is not there
        return []
