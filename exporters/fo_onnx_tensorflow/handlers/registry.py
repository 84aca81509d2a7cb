"""Registration of handlers for TensorFlow operators that tf2onnx lacks or gets wrong.

tf2onnx has one registry for the process. The handlers are in it for the time of a conversion only, so that other users
of tf2onnx find it as it was. They are written for tf2onnx 1.17.0.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tf2onnx.onnx_opset  # which fills the registry
from tf2onnx.handler import tf_op

from fo_onnx.errors import PluginError

from . import corrections, formulas
from .einsum import einsum
from .nodes import Build, Nodes

WRITTEN_FOR = "1.17.0"

_log = logging.getLogger(__name__)


_ADDED: dict[str, Build] = {
    "Erfc": formulas.erfc,
    "Expm1": formulas.expm1,
    "Log1p": formulas.log1p,
    "Erfinv": formulas.erfinv,
    "Lgamma": formulas.lgamma,
    "Cholesky": formulas.cholesky,
    "PreventGradient": lambda nodes: nodes.inputs[0],
    "TruncateMod": lambda nodes: nodes.make("Mod", *nodes.inputs, fmod=1),
}
"""Operators that tf2onnx lacks, and what makes their nodes."""
_REPLACED: dict[str, Build] = {
    "Select": corrections.select,
    "SelectV2": corrections.select,
    "Log": lambda nodes: nodes.make("Log", *nodes.inputs),
    "Less": corrections.compare,
    "Greater": corrections.compare,
    "OneHot": corrections.one_hot,
    "PadV2": corrections.pad,
    "FloorDiv": corrections.floor_div,
    "FloorMod": corrections.floor_mod,
    "Einsum": einsum,
}
"""Operators that tf2onnx gets wrong, as `corrections` says, or takes apart too far."""
_LEAST_OPSET = 13
"""The operator set that these nodes are of; they are the same in newer ones."""


@contextlib.contextmanager
def register_own_handlers() -> Iterator[None]:
    """Put the handlers into tf2onnx's registry until the context ends; they add operators, or replace its own."""
    if tf2onnx.__version__ != WRITTEN_FOR:
        _log.warning("fo-onnx extends tf2onnx %s; %s is installed.", WRITTEN_FOR, tf2onnx.__version__)
    with register_handlers({name: (_LEAST_OPSET, _handler(build)) for name, build in (_ADDED | _REPLACED).items()}):
        yield


@contextlib.contextmanager
def register_handlers(handlers: Mapping[str, tuple[int, Callable[..., None]]]) -> Iterator[None]:
    """Put handlers into tf2onnx's registry until the context ends, each with the least operator set that it is for.

    Not for several threads at once: the caller serialises conversions.

    Raises:
        PluginError: tf2onnx keeps its registry elsewhere than 1.17.0 does.
    """
    registry = _registry()
    # An operator set that the registry does not have yet is added by tf2onnx.
    before = {name: registry[least].get(name) for name, (least, _) in handlers.items() if least < len(registry)}
    for name, (least, handler) in handlers.items():
        tf_op.register_handler(handler, least, [name], "", {})
    try:
        yield
    finally:
        for name, (least, _) in handlers.items():
            if before.get(name) is None:
                del registry[least][name]
            else:
                registry[least][name] = before[name]


def _registry() -> list[dict[str, Any]]:
    try:
        registry = tf_op.get_opsets()[""]
        usable = isinstance(registry, list) and all(isinstance(handlers, dict) for handlers in registry)
    except (AttributeError, KeyError, TypeError):
        usable = False
    if not usable:
        raise PluginError(
            f"fo-onnx extends the operators of tf2onnx {WRITTEN_FOR}, and the installed {tf2onnx.__version__} keeps them in "
            f"another way; pip install tf2onnx=={WRITTEN_FOR}."
        )
    return registry  # type: ignore[no-any-return]


def _handler(build: Build) -> Callable[..., None]:
    def handle(graph: Any, node: Any, **_: Any) -> None:
        nodes = Nodes(graph, node)
        nodes.replace(build(nodes))

    return handle
