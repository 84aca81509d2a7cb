"""Devices by name, as the core writes them (``cpu``, ``cuda:1``, ``tpu:0``), and where arrays go for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from fo_onnx.errors import DeviceError
from fo_onnx.protocols import Array, Devices

from .references import is_array

PLATFORMS = {"cpu": "cpu", "cuda": "gpu", "gpu": "gpu", "tpu": "tpu"}
"""JAX's platforms by the names of devices; ``gpu`` is that of CUDA and of ROCm."""
_BATCH = "batch"
_NAME = re.compile(r"/?(?:device:)?([a-z]+)(?::(\d+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """Where weights and batches go.

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

    def weight(self, array: Any) -> Any:
        """A weight in its place."""
        # One of numpy would be copied to an accelerator with every batch.
        return jax.numpy.asarray(array) if self.weights is None else jax.device_put(array, self.weights)

    def cut(self, arrays: Sequence[Array]) -> list[Array]:
        """The arrays of a batch, padded with its last row where it could not be cut into equal parts."""
        short = -len(arrays[0]) % self.parts
        return [np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) if short else a for a in arrays]

    def batch(self, arrays: Sequence[Array]) -> list[Any]:
        """The arrays of a batch in their places. On the CPU the caller's memory may be shared, and is only read."""
        return [a if self.batches is None else jax.device_put(a, self.batches) for a in arrays]


def place(devices: Devices, weights: Iterable[Any]) -> Placement:
    """Where a model runs.

    Args:
        devices: ``"auto"`` for where the weights are; one device's name; or several, over which each batch is spread while
            each holds all weights.
        weights: The model's weights.

    Raises:
        DeviceError: One is not there, or is named twice, or they are of different kinds.
    """
    if devices == "auto":
        return Placement(", ".join(map(name_of, homes(weights))))
    names = (devices,) if isinstance(devices, str) else tuple(devices)
    found = [_device(n) for n in names]
    if len(found) == 1:
        where = SingleDeviceSharding(found[0])
        return Placement(name_of(found[0]), where, where)
    kinds = sorted({d.platform for d in found})
    if len(set(found)) < len(found) or len(kinds) != 1:
        problem = "one is named twice" if len(kinds) == 1 else f"they are of different kinds, {' and '.join(kinds)}"
        raise DeviceError(
            f"device={list(names)}: {problem}; to spread batches over several, name different ones of one kind."
        )
    mesh = Mesh(np.array(found), (_BATCH,))
    return Placement(
        ", ".join(map(name_of, found)),
        NamedSharding(mesh, PartitionSpec()),  # type: ignore[no-untyped-call]
        NamedSharding(mesh, PartitionSpec(_BATCH)),  # type: ignore[no-untyped-call]
        len(found),
    )


def homes(weights: Iterable[Any]) -> list[Any]:
    """The devices that weights are on, in order; the one where JAX computes by itself where there is none."""
    # A deleted (donated) array is nowhere; running the model will say so.
    found = {d for w in weights if is_array(w) and not w.is_deleted() for d in w.devices()}
    if found:
        return sorted(found, key=lambda d: (d.platform, d.id))
    return [next(iter(jax.numpy.zeros(()).devices()))]


def name_of(device: Any) -> str:
    """A device's name as the core writes it."""
    kind = "cuda" if device.platform == "gpu" else str(device.platform)
    index = _locals(device.platform).index(device) if device in _locals(device.platform) else device.id
    return kind if kind == "cpu" and index == 0 else f"{kind}:{index}"


def tpu_reason(devices: Iterable[Any]) -> str | None:
    """Why a model whose weights are on these devices is not exported: one is a TPU; else ``None``."""
    found = sorted({f"TPU_{d.id}" for d in devices if d.platform == "tpu"})
    return f"the model lives on a TPU ({', '.join(found)}), where ONNX Runtime does not run" if found else None


def _device(name: str) -> Any:
    match = _NAME.fullmatch(name.strip())
    kind = match[1].lower() if match else ""
    there = _locals(PLATFORMS[kind]) if kind in PLATFORMS else []
    index = int(match[2] or 0) if match else 0
    if index < len(there):
        return there[index]
    # What JAX finds by itself, and the CPU, which is always there.
    listed = list(dict.fromkeys(map(name_of, (*jax.local_devices(), *_locals("cpu")))))
    if kind not in PLATFORMS:
        advice = "The JAX runner knows cpu, cuda (or gpu) and tpu."
    elif there:
        advice = f"Say one of {', '.join(map(name_of, there))}."
    else:
        advice = "Say device='cpu', or install JAX for it: https://docs.jax.dev/en/latest/installation.html tells how."
    raise DeviceError(
        f"device={name!r} was asked for, but jax {jax.__version__} has only {', '.join(listed)}. {advice}"
    )


def _locals(platform: str) -> list[Any]:
    """The devices of a platform that this process may use."""
    try:
        return list(jax.local_devices(backend=platform))
    except RuntimeError:  # how JAX says that a platform is not there
        return []
