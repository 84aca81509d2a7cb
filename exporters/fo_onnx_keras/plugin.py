"""The Keras and TensorFlow exporter as the core sees it. Its methods import the frameworks once they are called.

TensorFlow's own models always go through TensorFlow. A Keras model on another backend is handed on; see `delegate`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import Devices, NativePath
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.contracts.spec import InputSignature, ModelSpec
from fo_onnx.errors import ExportError, ModelError

from .detect import TENSORFLOW, backend_of, is_function_over_tensors, is_model, keras_module
from .files import load, load_weights
from .identity import fingerprint
from .interface import name_of, reason_of_text, signature_of
from .messages import require

_PACKAGES = {TENSORFLOW: ("tensorflow", "tf2onnx"), "torch": ("torch",), "jax": ("jax", "jaxlib")}


class KerasExporter:
    """Keras models and layers on every backend, ``tf.function``, ``tf.Module``, SavedModels, functions over tensors."""

    name = "keras"
    modules = ("keras", "tensorflow")
    suffixes = (".keras", ".h5", ".hdf5")

    def accepts(self, model: Any) -> bool:
        """Return whether `model` is one of Keras or TensorFlow, or a function whose closure or globals hold either."""
        return is_model(model) or is_function_over_tensors(model)

    def opens(self, path: Path) -> bool:
        """Return whether the path ends like a file of Keras, or is the folder of a SavedModel."""
        return path.suffix.lower() in self.suffixes or (path / "saved_model.pb").is_file()

    def signature(self, model: Any) -> InputSignature | None:
        """Return the inputs that the model declares, by ``keras.Input``, by its build, or by its function's signature.

        Raises:
            ModelError: It was never built.
        """
        return signature_of(model)

    def prefer_native(self, model: Any, example: Inputs) -> str | None:
        """Return that it takes text or lives on a TPU, if so, or why the exporter of its backend prefers to run it."""
        reason = reason_of_text(example)
        if reason is not None:
            return reason
        if backend_of(model) == TENSORFLOW:
            from .devices import tpu_of

            place = tpu_of(model)
            return None if place is None else f"the model lives on {place}, and ONNX Runtime does not run on TPUs"
        from .delegate import prefer_native

        return prefer_native(model, example)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Write `model` to `path`: by tf2onnx, or by the exporter of the backend that Keras runs on."""
        reason = reason_of_text(example)
        if reason is not None:
            raise ExportError(f"converting {options.model_name or name_of(model)} to ONNX failed: {reason}.")
        if backend_of(model) == TENSORFLOW:
            require("tf2onnx", f"converting {options.model_name or name_of(model)} to ONNX")
            from .export import export
        else:
            from .delegate import export
        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """Return the model in TensorFlow, or in the backend that Keras runs on, in float32."""
        if backend_of(model) == TENSORFLOW:
            from .native import open_native
        elif reason_of_text(example) is not None:
            raise ModelError(
                f"{options.model_name or name_of(model)} cannot run on text: Keras takes it on its TensorFlow backend only, and runs on "
                f"{backend_of(model)}. Set KERAS_BACKEND=tensorflow, or give numbers."
            )
        else:
            from .delegate import open_native
        return open_native(model, example, device, options, output)

    def native_paths(
        self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions
    ) -> Sequence[NativePath]:
        """Return ``predict``, ``tf.function`` and XLA, as far as the model and its backend have them."""
        from .native_paths import native_paths

        return native_paths(model, example, options, output)

    def fingerprint(self, model: Any, example: Inputs) -> str:
        """Return a digest of the weights of the model, its configuration and its own code."""
        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """Return the versions of Keras, of its backend and of its converter, and the name of the backend."""
        keras = keras_module()
        backend = str(keras.config.backend() if keras is not None else os.environ.get("KERAS_BACKEND", TENSORFLOW))
        versions = {"keras_backend": backend}
        for package in ("keras", *_PACKAGES.get(backend, ())):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        return versions

    def load(self, path: Path, *, trust: bool) -> Any:
        """Return the model in a ``.keras`` file, an ``.h5`` file or a SavedModel folder."""
        return load(path, trust=trust)

    def load_weights(self, model: Any, path: Path) -> None:
        """Fill `model` from ``.weights.h5``, ``.keras`` or safetensors."""
        load_weights(model, path)
