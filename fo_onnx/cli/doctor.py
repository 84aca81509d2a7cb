"""``fo-onnx doctor``: what is installed, what works, and what is to be mended."""

from __future__ import annotations

import os
import platform
from typing import Any

import click

from .failures import FAILED
from .options import common
from .output import pairs, show, size_text

PACKAGES = (
    "fo-onnx", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "pyarrow", "orjson",
    "safetensors", "filelock", "platformdirs", "click", "tqdm", "pillow", "torch", "onnxscript", "tensorflow", "keras",
    "tf2onnx", "jax", "jaxlib", "jax2onnx", "flax", "equinox", "dm-haiku", "scikit-learn",
)  # fmt: skip
TELEMETRY = "ORT_DISABLE_TELEMETRY"


@click.command()
@click.option("--clear-cache", is_flag=True, help="Remove every export that was kept; later runs export anew.")
@common
@click.pass_context
def command(ctx: click.Context, clear_cache: bool) -> None:
    """Show versions, plugins, devices and the cache of exports, and what is wrong with them.

    Temporary folders that killed runs of yours left are removed. The exit code is 1 where something is to be mended.
    """
    from ..engine.cache import ExportCache
    from ..store import files

    removed = files.remove_temporary_remains()
    cleared = ExportCache.of_user().clear() if clear_cache else None
    found = examine() | {"cleared": cleared, "removed": removed}
    lines = [
        ("python", found["python"]),
        ("platform", found["platform"]),
        ("cores", found["cores"]),
        ("packages", [f"{n} {v}" for n, v in found["packages"].items()]),
        ("plugins", list(map(_plugin_text, found["plugins"]))),
        ("onnxruntime", ", ".join(found["wheels"]) or "not installed"),
        ("providers", ", ".join(found["providers"]) or "none"),
        ("devices", [f"{d['device']}: {d['problem'] or 'works'}" for d in found["devices"]] or "none"),
        ("cache", _cache_text(found["cache"], cleared)),
        ("remains", f"{removed} temporary folders of killed runs were removed" if removed else None),
        ("telemetry", found["telemetry"]),
        ("verdict", _verdict(found["problems"])),
    ]  # fmt: skip
    show(found, pairs(lines))
    if found["problems"]:
        ctx.exit(FAILED)


def examine() -> dict[str, Any]:
    """Everything that the command shows, as JSON types; ``problems`` holds a text per thing that is to be mended."""
    from .. import plugins
    from ..engine import cache
    from ..engine.providers import cpu_cores, installed_wheels

    telemetry = _telemetry()  # before onnxruntime is imported, which sets the variable
    states = plugins.states()
    wheels = installed_wheels()
    providers, devices, problems = _devices()
    problems += [s.problem for s in states if s.problem is not None]
    kept = cache.state()
    if kept["problem"] is not None:
        problems.append(f"exports are not kept, and not taken from the cache: {kept['problem']}")
    if len(wheels) > 1:
        problems.append(
            f"{' and '.join(wheels)} are installed together and overwrite each other. Mend it with pip uninstall -y "
            f"{' '.join(wheels)}, then install one of them: pip install 'fo-onnx[cpu]' or 'fo-onnx[gpu]'."
        )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": cpu_cores(),
        "packages": _versions(),
        "plugins": [
            {"name": s.name, "kind": s.kind, "target": s.target, "package": s.package, "problem": s.problem}
            for s in states
        ],
        "wheels": wheels,
        "providers": providers,
        "devices": devices,
        "cache": kept,
        "telemetry": telemetry,
        "problems": problems,
    }  # fmt: skip


def _verdict(problems: list[str]) -> str | list[str]:
    return ["TO BE MENDED: " + problems[0], *problems[1:]] if problems else "all is well"


def _plugin_text(state: dict[str, Any]) -> str:
    return f"{state['name']} {state['kind']} ({state['target']} of {state['package']}): {state['problem'] or 'works'}"


def _cache_text(state: dict[str, Any], cleared: int | None) -> str:
    count = f"{state['entries']} export{'' if state['entries'] == 1 else 's'}"
    found = (
        f"{count}, {size_text(state['size_bytes'])} of at most {size_text(state['limit_bytes'])}, in {state['folder']}"
    )
    return found if cleared is None else f"{found} ({cleared} were removed)"


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _devices() -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Providers, the devices that they serve, each tried with a session, and what keeps onnxruntime from working."""
    from ..engine.providers import KINDS
    from ..engine.session import available_providers
    from ..errors import PluginError

    try:
        providers = available_providers()
    except PluginError as err:
        return [], [], [str(err)]
    kinds = [kind for kind, provider in KINDS.items() if provider in providers]
    devices: list[dict[str, Any]] = [{"device": kind, "problem": _problem(kind, providers)} for kind in kinds]
    broken = [str(d["problem"]) for d in devices if d["device"] == "cpu" and d["problem"]]
    return providers, devices, broken


def _problem(kind: str, providers: list[str]) -> str | None:
    """Why a session on a device cannot be opened; ``None`` where it can."""
    from pathlib import Path

    from ..engine.providers import placements
    from ..engine.session import Session
    from ..errors import FoOnnxError

    try:
        (place,) = placements(kind, "float32", providers)
        Session(_smallest_model(), Path(), place, 1, "a model of one node")
    except FoOnnxError as err:
        return str(err)
    return None


def _smallest_model() -> bytes:
    import onnx
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "smallest", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _telemetry() -> str:
    said = os.environ.get(TELEMETRY)
    if said is None:
        return f"off: fo-onnx sets {TELEMETRY}=1 before it imports onnxruntime"
    return f"{'off' if said not in ('', '0') else 'on'}: {TELEMETRY}={said} is set in your environment"
