"""The scikit-learn exporter as the core sees it. scikit-learn is imported only when an estimator or a file of one is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from fo_onnx.errors import OptionError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs, RawModel
from fo_onnx.spec import InputSignature, ModelSpec

from .recognition import is_model


class SklearnExporter:
    """Fitted classifiers with ``predict_proba``, and pipelines, searches and ensembles of them."""

    name = "sklearn"
    suffixes = (".joblib", ".pkl", ".pickle")

    def accepts(self, model: Any) -> bool:
        """Whether `model` is an estimator, or its bound method ``predict_proba``."""
        return is_model(model)

    def opens(self, path: Path) -> bool:
        """Whether it ends like a file of joblib or pickle."""
        return path.suffix.lower() in self.suffixes

    def bound(self, model: Any, params: Any) -> NoReturn:
        """Raises an `OptionError`."""
        raise OptionError(
            f"params= was given for {type(model).__name__}, and a fitted estimator holds its own. Leave params= out."
        )

    def signature(self, model: Any) -> InputSignature | None:
        """The columns that the estimator was fitted on, where they have names; else one matrix ``X``."""
        from .interfaces import signature_of

        return signature_of(model)

    def native_only(self, model: Any, example: Inputs) -> str | None:
        """Why the estimator's rows in ONNX could be others than its own without a comparison showing it."""
        from .discontinuities import native_only

        return native_only(model)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Writes `model` to `path` by skl2onnx, computing in float64 as scikit-learn does."""
        from .conversion import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """The estimator's ``predict_proba``, on rows in float64."""
        from .native import open_native

        return open_native(model, example, device, options, output)

    def fingerprint(self, model: Any) -> str:
        """A digest of the estimator's classes, parameters and fitted arrays."""
        from .fingerprints import fingerprint

        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """Versions of scikit-learn and of what converts it."""
        from importlib.metadata import PackageNotFoundError, version

        import sklearn

        found = {"scikit-learn": str(sklearn.__version__)}
        try:
            found["skl2onnx"] = version("skl2onnx")
        except PackageNotFoundError:
            found["skl2onnx"] = "not installed"
        return found

    def load(self, path: Path, *, trust: bool) -> Any:
        """The estimator in a file of joblib or pickle, which runs code."""
        from .files import load

        return load(path, trust=trust)

    def load_weights(self, model: Any, path: Path) -> NoReturn:
        """Raises a `ModelError`: an estimator's state is in its pickle only."""
        from .files import load_weights

        load_weights(model, path)
