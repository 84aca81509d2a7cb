"""``fo-onnx doctor``: what is installed, what works, and what has to be repaired."""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from .shared.options import common
from .shared.output import pairs, plural, show, size_text

PACKAGES = (
    "fo-onnx", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "pyarrow", "orjson",
    "safetensors", "filelock", "platformdirs", "click", "tqdm", "pillow", "torch", "onnxscript", "tensorflow", "keras",
    "tf2onnx", "jax", "jaxlib", "jax2onnx", "flax", "equinox", "dm-haiku", "scikit-learn",
)  # fmt: skip
TELEMETRY = "ORT_DISABLE_TELEMETRY"
SMALLEST_MODEL = '<ir_version: 10, opset_import: ["": 18]> smallest (float[n, 2] x) => (float[n, 2] y) {y = Softmax(x)}'
"""A graph of one node, in ONNX's text syntax."""


@click.command()
@click.option(
    "--clear-cache",
    is_flag=True,
    help="Remove every export and measurement in the cache; later runs export and measure again.",
)
@common
def command(clear_cache: bool) -> None:
    """Show versions, plugins, devices and the cache of exports, and what is wrong with them.

    Temporary folders that your killed runs left behind are removed. The exit code is 1 if something is to be mended.
    """
    from ..conversion.cache import ExportCache
    from ..runtime.measurements import Measurements
    from ..store import files

    removed = files.remove_temporary_remains()
    cleared = ExportCache.of_user().clear() + Measurements.of_user().clear() if clear_cache else None
    state = examine() | {"cleared": cleared, "removed": removed}
    problems = state["problems"]
    plugins = [
        f"{p['name']} {p['kind']} ({p['target']} of {p['package']}): {p['problem'] or 'works'}"
        for p in state["plugins"]
    ]
    lines = [
        ("python", state["python"]),
        ("platform", state["platform"]),
        ("cores", state["cores"]),
        ("packages", [f"{n} {v}" for n, v in state["packages"].items()]),
        ("plugins", plugins),
        ("onnxruntime", ", ".join(state["wheels"]) or "not installed"),
        ("providers", ", ".join(state["providers"]) or "none"),
        ("devices", [f"{d['device']}: {d['problem'] or 'works'}" for d in state["devices"]] or "none"),
        ("cache", _cache_text(state["cache"], cleared)),
        ("remains", f"{removed} temporary folders of killed runs were removed" if removed else None),
        ("telemetry", state["telemetry"]),
        ("verdict", ["TO BE MENDED: " + problems[0], *problems[1:]] if problems else "all is well"),
    ]
    show(state, pairs(lines), failed=bool(problems))


def examine() -> dict[str, Any]:
    """Return everything that the command shows, as JSON types; ``problems`` holds a text per thing that has to be repaired."""
    from ..conversion.cache import ExportCache
    from ..models import plugins
    from ..runtime.devices import cpu_cores, installed_wheels
    from ..runtime.measurements import Measurements

    # Look at everything.
    telemetry = _telemetry()  # before onnxruntime is imported, which sets the variable
    states = plugins.states()
    wheels = installed_wheels()
    providers, devices, problems = _try_devices()
    cache_state = ExportCache.of_user().state() | {"measurements": Measurements.of_user().count()}
    # List what has to be repaired.
    problems += [s.problem for s in states if s.problem is not None]
    if cache_state["problem"] is not None:
        problems.append(f"exports are not kept, and not taken from the cache: {cache_state['problem']}")
    if len(wheels) > 1:
        problems.append(
            f"{' and '.join(wheels)} are installed together and overwrite each other. Mend it with pip uninstall -y "
            f"{' '.join(wheels)}, then install one of them: pip install 'fo-onnx[cpu]' or 'fo-onnx[gpu]'."
        )
    return {
        "python": platform.python_version(), "platform": platform.platform(), "cores": cpu_cores(), "packages": _versions(),
        "plugins": [asdict(state) for state in states], "wheels": wheels, "providers": providers, "devices": devices,
        "cache": cache_state, "telemetry": telemetry, "problems": problems,
    }  # fmt: skip


def _cache_text(state: dict[str, Any], cleared: int | None) -> str:
    sizes = f"{size_text(state['size_bytes'])} of at most {size_text(state['limit_bytes'])}"
    exports = f"{plural(state['entries'], 'export')}, {sizes}, in {state['folder']}"
    text = f"{exports}; {plural(state['measurements'], 'measurement')}"
    return text if cleared is None else f"{text} ({cleared} were removed)"


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _try_devices() -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Return providers, the devices that they serve, each tried with a session, and what keeps onnxruntime from working."""
    from ..errors import PluginError
    from ..runtime.devices import KINDS
    from ..runtime.session import available_providers

    try:
        providers = available_providers()
    except PluginError as err:
        return [], [], [str(err)]
    kinds = [kind for kind, provider in KINDS.items() if provider in providers]
    devices: list[dict[str, Any]] = [{"device": kind, "problem": _try_device(kind, providers)} for kind in kinds]
    # Only the CPU must work on every machine.
    broken = [str(d["problem"]) for d in devices if d["device"] == "cpu" and d["problem"]]
    return providers, devices, broken


def _try_device(kind: str, providers: list[str]) -> str | None:
    """Return why a session on a device cannot be opened; ``None`` if it can."""
    import onnx.parser

    from ..errors import FoOnnxError
    from ..runtime.devices import placements
    from ..runtime.session import Session

    try:
        (place,) = placements(kind, "float32", providers)
        model = onnx.parser.parse_model(SMALLEST_MODEL).SerializeToString()
        Session(model, Path(), place, 1, "a model of one node")
    except FoOnnxError as err:
        return str(err)
    return None


def _telemetry() -> str:
    value = os.environ.get(TELEMETRY)
    if value is None:
        return f"off: fo-onnx sets {TELEMETRY}=1 before it imports onnxruntime"
    return f"{'off' if value not in ('', '0') else 'on'}: {TELEMETRY}={value} is set in your environment"
