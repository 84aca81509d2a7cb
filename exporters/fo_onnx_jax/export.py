"""The JAX exporter as the core sees it. jax itself is imported only when a model of JAX is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

from fo_onnx.errors import ModelError, PluginError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs, RawModel
from fo_onnx.spec import InputSignature, ModelSpec

from . import models


class JaxExporter:
    """Functions over JAX arrays (plain, jitted, vmapped, partial), and the modules of flax, equinox and haiku."""

    name = "jax"
    suffixes: tuple[str, ...] = ()

    def accepts(self, model: Any) -> bool:
        """Whether `model` is a module of flax, equinox or haiku, or a function that holds or names something of JAX."""
        return models.accepts(model)

    def opens(self, path: Path) -> bool:
        """Never: parameters come in files of many kinds, and none of them holds the function."""
        return False

    def bound(self, model: Any, params: Any) -> Any:
        """`model` with parameters that are given beside it.

        A function takes them as its first argument. For a flax linen module `params` is what its ``init`` gave, with or
        without the other collections, or a TrainState; for a haiku function the parameters, or ``(params, state)``; for an
        ``nnx.GraphDef`` and for an equinox module that was partitioned, the other part.
        """
        from .parameters import bound

        return bound(model, params)

    def signature(self, model: Any) -> InputSignature | None:
        """The parameters of the function, without those that choose between training and inference."""
        return models.signature_of(model)

    def native_only(self, model: Any, example: Inputs) -> str | None:
        """The weights are on a TPU; or a loop is in it that ONNX Runtime runs more slowly than ``jax.jit``."""
        from .conversion import native_only

        return native_only(model, example)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Writes `model` to `path` by jax2tf and tf2onnx, or by jax2onnx where jax is newer."""
        _require_jax()
        from .conversion import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """The model under ``jax.jit``."""
        _require_jax()
        from .native import open_native

        return open_native(model, example, device, options, output)

    def fingerprint(self, model: Any) -> str:
        """A digest of the model's code and of everything that it holds."""
        from .fingerprints import fingerprint

        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """The versions of jax and jaxlib, of the loaded libraries of modules, and of what converts."""
        from importlib.metadata import PackageNotFoundError, version

        from . import newer

        converters = ("tensorflow", "tf2onnx") if newer.route() == "jax2tf" else ("jax2onnx",)
        found = {}
        for module, package in _DISTRIBUTIONS.items():
            if module in ("jax", "jaxlib", *converters) or module in sys.modules:
                try:
                    found[package] = version(package)
                except PackageNotFoundError:
                    # On the path without having been installed; its version is nowhere.
                    continue
        return found

    def load(self, path: Path, *, trust: bool) -> NoReturn:
        """Raises a `ModelError`: there are no files of JAX models."""
        raise ModelError(f"{path}: there are no files of JAX models. Give the function or module, with params=.")

    def load_weights(self, model: Any, path: Path) -> NoReturn:
        """Raises a `ModelError`: a JAX model's parameters have no one form in files."""
        raise ModelError(
            f"{path}: weights in files are not read for JAX models, whose parameters can have any structure. Read them and give "
            "them with params=."
        )


_DISTRIBUTIONS = {
    "jax": "jax", "jaxlib": "jaxlib", "flax": "flax", "equinox": "equinox", "haiku": "dm-haiku",
    "tensorflow": "tensorflow", "tf2onnx": "tf2onnx", "jax2onnx": "jax2onnx",
}  # fmt: skip
"""Distributions by the module that they are loaded as."""


def _require_jax() -> None:
    """Raises a `PluginError` where jax is not installed, which ``framework="jax"`` may ask for all the same."""
    try:
        import jax  # noqa: F401
    except ImportError as err:
        raise PluginError(f"running a model in JAX needs jax ({err}): pip install 'fo-onnx[jax]'.") from err
