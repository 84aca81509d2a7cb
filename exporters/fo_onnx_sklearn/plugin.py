"""The scikit-learn exporter as the core sees it. What imports scikit-learn is imported by the methods, once they are called."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import Devices, NativePath
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.contracts.spec import InputSignature, ModelSpec


class SklearnExporter:
    """Fitted classifiers with ``predict_proba``, and pipelines, searches and ensembles of them; of other packages too."""

    name = "sklearn"
    modules = ("sklearn", "catboost")
    suffixes = (".joblib", ".pkl", ".pickle")

    def accepts(self, model: Any) -> bool:
        """Return whether `model` is an estimator or used like one, or its bound method ``predict_proba``."""
        from .detect import is_model

        return is_model(model) and importlib.util.find_spec("sklearn") is not None

    def opens(self, path: Path) -> bool:
        """Return whether the path ends like a file of joblib or pickle."""
        return path.suffix.lower() in self.suffixes

    def signature(self, model: Any) -> InputSignature | None:
        """Return the columns that the estimator was fitted on, if they have names; else one input ``X``."""
        from .inputs import signature_of

        return signature_of(model)

    def prefer_native(self, model: Any, example: Inputs) -> str | None:
        """Return why rows of the file could differ from the estimator's without a comparison showing it."""
        from .exactness import prefer_native

        return prefer_native(model)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Write `model` to `path` by skl2onnx, computing in float64 as scikit-learn does."""
        from .export import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """Return the estimator's ``predict_proba``, on rows in float64."""
        from .native import open_native

        return open_native(model, example, device, options, output)

    def native_paths(
        self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions
    ) -> Sequence[NativePath]:
        """Return ``predict_proba``."""
        from .native_paths import native_paths

        return native_paths(model, example, options, output)

    def fingerprint(self, model: Any, example: Inputs) -> str:
        """Return a digest of the estimator's class, parameters and fitted state."""
        from .identity import fingerprint

        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """Return the versions of scikit-learn and of what converts it."""
        import sklearn

        versions = {"scikit-learn": str(sklearn.__version__)}
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions["skl2onnx"] = metadata.version("skl2onnx")
        return versions

    def load(self, path: Path, *, trust: bool) -> Any:
        """Return the estimator in a file of joblib or pickle, which runs code."""
        from .files import load

        return load(path, trust=trust)
