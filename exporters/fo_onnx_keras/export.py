"""The Keras and TensorFlow exporter as the core sees it. Neither is imported before one of their models or files is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from fo_onnx.errors import OptionError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs, RawModel
from fo_onnx.spec import InputSignature, ModelSpec

from .recognition import is_function_over_tensors, is_model


class KerasExporter:
    """Keras models and layers on every backend, ``tf.function``, ``tf.Module``, SavedModels, and functions over tensors."""

    name = "keras"
    suffixes = (".keras", ".h5", ".hdf5")

    def accepts(self, model: Any) -> bool:
        """Whether `model` is a model of Keras or TensorFlow, or a function whose closure or globals hold either."""
        return is_model(model) or is_function_over_tensors(model)

    def opens(self, path: Path) -> bool:
        """Whether it ends like a file of Keras, or is the folder of a SavedModel."""
        return path.suffix.lower() in self.suffixes or (path / "saved_model.pb").is_file()

    def bound(self, model: Any, params: Any) -> NoReturn:
        """Raises an `OptionError`."""
        raise OptionError(
            f"params= was given for {type(model).__name__}, and a Keras or TensorFlow model holds its own. Load them with "
            "model.set_weights(params) and leave params= out."
        )

    def signature(self, model: Any) -> InputSignature | None:
        """The inputs that the model declares: by ``keras.Input``, by what it was built with, by its function's signature.

        Raises:
            ModelError: It was never built.
        """
        from .interfaces import signature_of

        return signature_of(model)

    def native_only(self, model: Any, example: Inputs) -> str | None:
        """That the model lives on a TPU, where it does."""
        from .backends import native_only

        return native_only(model, example)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Writes `model` to `path`: by tf2onnx, or by the exporter of the backend that Keras runs on."""
        from .backends import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """The model in TensorFlow, or in the backend that Keras runs on, in float32."""
        from .backends import open_native

        return open_native(model, example, device, options, output)

    def fingerprint(self, model: Any) -> str:
        """A digest of the model's structure, code and weights."""
        from .fingerprints import fingerprint

        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """Versions of Keras, of its backend and of what converts it, and the backend's name."""
        from .backends import versions

        return versions()

    def load(self, path: Path, *, trust: bool) -> Any:
        """The model in a ``.keras`` file, an ``.h5`` file or a SavedModel folder."""
        from .files import load

        return load(path, trust=trust)

    def load_weights(self, model: Any, path: Path) -> None:
        """Fills `model` from ``.weights.h5``, ``.keras`` or safetensors."""
        from .files import load_weights

        load_weights(model, path)
