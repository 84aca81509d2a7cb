"""The JAX exporter as the core sees it. jax itself is imported only once a model of JAX is there."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import Devices, NativePath
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.contracts.spec import InputSignature, ModelSpec
from fo_onnx.errors import PluginError

from . import detect

_LIBRARIES = {"flax": "flax", "equinox": "equinox", "haiku": "dm-haiku"}
"""Distributions of modules, by the name that they are imported by."""


class JaxExporter:
    """Functions over JAX arrays (plain, jitted, vmapped, partial), and the modules of flax, equinox and haiku."""

    name = "jax"
    modules = ("jax",)

    def accepts(self, model: Any) -> bool:
        """Return whether `model` is a module of flax, equinox or haiku, or a function that holds or names something of JAX."""
        return detect.accepts(model)

    def bind_params(self, model: Any, params: Any) -> Any:
        """Return `model` with parameters that are no part of it.

        A function takes them as its first argument. For a flax linen module `params` is what its ``init`` gave, with or
        without the other collections, or a TrainState; for a haiku function the parameters, or ``(params, state)``; for an
        ``nnx.GraphDef`` and for an equinox module that was partitioned, the other part.
        """
        from .parameters import bind_params

        return bind_params(model, params)

    def signature(self, model: Any) -> InputSignature | None:
        """Return the parameters of the function, without those that choose between training and inference."""
        from .signature import signature_of

        return signature_of(model)

    def prefer_native(self, model: Any, example: Inputs) -> str | None:
        """Return that the weights are on a TPU, or the loop that ONNX Runtime runs more slowly than ``jax.jit``."""
        from .export import prefer_native

        return prefer_native(model, example)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Write `model` to `path` by jax2tf and tf2onnx, or by jax2onnx if jax is newer."""
        _require_jax()
        from .export import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """Return the model under ``jax.jit``."""
        _require_jax()
        from .native import open_native

        return open_native(model, example, device, options, output)

    def native_paths(
        self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions
    ) -> Sequence[NativePath]:
        """Return ``jax.jit``."""
        _require_jax()
        from .native_paths import native_paths

        return native_paths(model, example, options, output)

    def fingerprint(self, model: Any, example: Inputs | None = None) -> str:
        """Return a digest of the model's name, program and weights."""
        from .identity import fingerprint

        return fingerprint(model, example)

    def versions(self) -> dict[str, str]:
        """Return the versions of jax and jaxlib, of the loaded libraries of modules, and of what converts."""
        from importlib.metadata import PackageNotFoundError, version

        from .export import choose_route

        converters = ("tensorflow", "tf2onnx") if choose_route() == "jax2tf" else ("jax2onnx",)
        libraries = (package for module, package in _LIBRARIES.items() if module in sys.modules)
        versions = {}
        for package in ("jax", "jaxlib", *libraries, *converters):
            # One that is on the path without having been installed has its version nowhere.
            with contextlib.suppress(PackageNotFoundError):
                versions[package] = version(package)
        return versions


def _require_jax() -> None:
    """Raise a `PluginError` if jax is not installed, which ``framework="jax"`` may ask for all the same."""
    try:
        import jax  # noqa: F401
    except ImportError as err:
        raise PluginError(f"running a model in JAX needs jax ({err}): pip install 'fo-onnx[jax]'.") from err
