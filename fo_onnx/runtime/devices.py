"""Devices by name, and the ONNX Runtime provider that serves each.

What was asked for and is not there is an error that names the missing library; nothing changes the device silently.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DeviceError, OptionError

KINDS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider",
         "openvino": "OpenVINOExecutionProvider"}  # fmt: skip
_WHEELS = {"cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}
_NAME = re.compile(
    r"/?(?:job:[\w.-]+/)?(?:replica:\d+/)?(?:task:\d+/)?(?:device:)?(auto|cpu|gpu|cuda|tensorrt|openvino|tpu)(?::(\d+))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Device:
    """A device: its kind in lower case, and its number."""

    kind: str
    index: int = 0

    def __str__(self) -> str:
        plain = self.kind == "auto" or (self.kind == "cpu" and self.index == 0)
        return self.kind if plain else f"{self.kind}:{self.index}"


@dataclass(frozen=True)
class Placement:
    """Where and how a session runs.

    Attributes:
        device: The device's name.
        provider: ONNX Runtime's provider for it.
        options: The provider's options.
        tf32: Whether it rounds products to TF32.
        disabled_optimizers: Steps of ONNX Runtime's optimisation that make this file slower.
    """

    device: str
    provider: str
    options: tuple[tuple[str, Any], ...] = ()
    tf32: bool = False
    disabled_optimizers: tuple[str, ...] = ()

    def preload(self, ort: Any) -> None:
        """Load the CUDA libraries that came as wheels, so that ONNX Runtime finds them."""
        if self.provider in (KINDS["cuda"], KINDS["tensorrt"]) and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()


def parse_device(name: str) -> Device:
    """Return the device that `name` means: ``cuda:1``, ``gpu`` (which is ``cuda``), TensorFlow's ``/GPU:1``, in any case.

    Raises:
        OptionError: It means none.
    """
    match = _NAME.fullmatch(name.strip()) if isinstance(name, str) else None
    if match is None:
        raise OptionError(
            f"device={name!r} is not known; known are auto, cpu, cuda, cuda:N, tensorrt, tensorrt:N, openvino, tpu and "
            "tpu:N (gpu is cuda)."
        )
    kind = match[1].lower()
    return Device("cuda" if kind == "gpu" else kind, int(match[2] or 0))


def placements(device: str | Sequence[str], precision: str, available: list[str]) -> list[Placement]:
    """Return the placements that `device` asks for; for ``auto`` the candidates, best first: the first that loads is it.

    Args:
        device: One device's name, or several.
        precision: ``"tf32"`` to let CUDA round products to TF32; with any other one the placements are those of float32.
        available: The providers that the installed onnxruntime has.

    Raises:
        DeviceError: The installed onnxruntime has no provider for it.
    """
    if not device:
        raise OptionError(
            f"device={list(device) if device != '' else ''!r} names no device; say 'auto', or at least one."
        )
    if not isinstance(device, str):
        return [p for name in device for p in placements(name, precision, available)]
    parsed = parse_device(device)
    if parsed.kind == "auto":
        kinds = ["cuda", "cpu"] if KINDS["cuda"] in available else ["cpu"]
        if precision == "tf32":
            # The CPU has none, and nothing changes the precision silently.
            return placements(kinds[0], precision, available)
        return [_placement(Device(k), precision) for k in kinds]
    if parsed.kind == "tpu":
        raise DeviceError(
            f"device={device!r}: ONNX Runtime does not run on TPUs; only models of a framework that does can."
        )
    if KINDS[parsed.kind] not in available:
        raise DeviceError(_not_available(device, parsed.kind, available))
    if precision == "tf32" and parsed.kind == "cpu":
        raise DeviceError("precision='tf32' was asked for on the CPU, which has no TF32; say precision='float32'.")
    return [_placement(parsed, precision)]


def _placement(device: Device, precision: str) -> Placement:
    tf32 = precision == "tf32" and device.kind in ("cuda", "tensorrt")
    options: dict[str, Any] = {}
    if device.kind == "cpu":
        device = Device("cpu")  # ONNX Runtime has but one
    if device.kind == "cuda":
        # The exhaustive search of convolution algorithms runs again for each new shape, and is slow.
        options = {"device_id": device.index, "use_tf32": int(tf32), "cudnn_conv_algo_search": "HEURISTIC"}
    elif device.kind == "tensorrt":
        options = {"device_id": device.index}
    elif device.kind == "openvino":
        options = dict(_openvino_options("f32"))
    return Placement(str(device), KINDS[device.kind], tuple(options.items()), tf32)


def place_in_bf16() -> Placement:
    """Return the placement of a session on the CPU that computes in bfloat16, by OpenVINO."""
    return replace(_placement(Device("openvino"), "float32"), options=_openvino_options("bf16"))


def _openvino_options(precision: str) -> tuple[tuple[str, Any], ...]:
    return ("device_type", "CPU"), ("load_config", json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": precision}}))


def installed_wheels() -> list[str]:
    """Return the distributions of onnxruntime that are installed; two at once have overwritten each other."""
    from importlib.metadata import distributions

    names = {str(d.metadata["Name"]).lower().replace("_", "-") for d in distributions()}
    return sorted(n for n in names if n == "onnxruntime" or n in set(_WHEELS.values()))


def _not_available(device: str, kind: str, available: list[str]) -> str:
    wheels, wheel = installed_wheels(), _WHEELS.get(kind, "onnxruntime")
    problem = f"device={device!r} was asked for, but the installed onnxruntime has only {', '.join(available)}"
    if len(wheels) > 1:
        return (
            f"{problem}, since {' and '.join(wheels)} are installed together and overwrite each other. Mend it with "
            f"pip uninstall -y {' '.join(wheels)}, then pip install {wheel}."
        )
    extra = "'fo-onnx[gpu]'" if wheel == "onnxruntime-gpu" else wheel
    return (
        f"{problem}. Mend it with pip uninstall -y {' '.join(wheels)}, then pip install {extra}; or say device='cpu'."
    )


def missing_library(ort: Any, provider: str) -> str:
    """Return why a provider's shared library does not load, in the words of the dynamic linker."""
    import ctypes

    stem = next(kind for kind in KINDS if KINDS[kind] == provider)
    folder = Path(ort.__file__).parent / "capi"
    name = f"onnxruntime_providers_{stem}.dll" if os.name == "nt" else f"libonnxruntime_providers_{stem}.so"
    if not (folder / name).exists():
        return f"its library {name} is not installed"
    try:
        # The provider's library needs symbols of the shared one.
        ctypes.CDLL(str(folder / name.replace(stem, "shared")), mode=getattr(ctypes, "RTLD_GLOBAL", 0))
        ctypes.CDLL(str(folder / name))
    except OSError as err:
        return str(err)
    return "its library loads, so the driver or the device number may be at fault"


def cpu_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
