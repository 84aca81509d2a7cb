"""Estimators in scikit-learn: the reference of every comparison, and the runner where ONNX cannot stand in."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fo_onnx.errors import DeviceError, ModelError, OutputError, RunError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs
from fo_onnx.spec import ModelSpec, TensorSpec

from .interfaces import OUTPUT, class_names_of, classifier_of, column_names, feature_count

Array = NDArray[Any]
UNKNOWN = "unknown categor"
"""In what scikit-learn's encoders say of a category that they were not fitted on."""


class SklearnModel:
    """An estimator's ``predict_proba`` with arrays in and an array out.

    Rows are given to it in float64, in which scikit-learn computes; what it would round to float32 on the way is not
    rounded.
    """

    device = "cpu"
    original = None

    def __init__(self, classifier: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._classifier: Any = classifier
        self._columns = column_names(classifier)
        given = {i.name for i in spec.inputs}
        framed = self._columns is not None and given.issuperset(self._columns)
        self._frames = frame_maker() if framed else None

    def forward(self, inputs: Inputs) -> Array:
        """Distributions (n, classes), float64. Rows that the estimator refuses, for NaN or an unknown category in them, are NaN.

        Raises:
            RunError: The estimator refuses the rows.
        """
        try:
            return self._predicted(inputs)
        except Exception as err:
            # An estimator, which may be anybody's, raises what it likes.
            suspects = np.ones(len(_finite(inputs)), bool) if UNKNOWN in str(err) else ~_finite(inputs)
            if not isinstance(err, ValueError) or not suspects.any():
                raise self._refused(inputs, err) from err
        return self._around(inputs, suspects)

    def close(self) -> None:
        """Lets the estimator go."""
        self._classifier = None

    def _around(self, inputs: Inputs, suspects: NDArray[np.bool_]) -> Array:
        """The rows above suspicion together; the others one by one, since one that is refused refuses its whole batch."""
        found = np.full((len(suspects), len(self._classifier.classes_)), np.nan)
        if not suspects.all():
            part = {k: a[~suspects] for k, a in inputs.items()}
            try:
                found[~suspects] = self._predicted(part)
            except Exception as err:
                raise self._refused(part, err) from err
        for i in np.flatnonzero(suspects):
            try:
                found[i] = self._predicted({k: a[i : i + 1] for k, a in inputs.items()})[0]
            except ValueError:
                continue  # it stays NaN, which is how rows that came to nothing are told
        return found

    def _predicted(self, inputs: Inputs) -> Array:
        with warnings.catch_warnings():
            # Columns without names are taken in the order of the fit, as documented.
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            return np.asarray(self._classifier.predict_proba(self._rows(inputs)), np.float64)

    def _rows(self, inputs: Inputs) -> Any:
        if self._frames is not None:
            assert self._columns is not None
            return self._frames({n: _column(inputs, n) for n in self._columns})
        (array,) = inputs.values()
        # A copy, always: an estimator made with copy=False works in place, on what is the caller's own.
        return array.astype(np.float64) if array.dtype.kind in "biuf" else array.astype(object)

    def _refused(self, inputs: Inputs, err: Exception) -> RunError:
        shapes = ", ".join(f"{n}: {a.dtype} {tuple(a.shape)}" for n, a in inputs.items())
        text = " ".join(str(err).split()).rstrip(".")
        return RunError(f"running {self.spec.name} in sklearn on {shapes} failed: {type(err).__name__}: {text}")


def open_native(
    model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
) -> SklearnModel:
    """`model` as a `SklearnModel`; see `fo_onnx.protocols.Exporter.native`."""
    classifier = classifier_of(model)
    if device not in ("auto", "cpu"):
        raise DeviceError(f"device={device!r} was asked for, but scikit-learn runs on the CPU only; say device='cpu'.")
    who = options.model_name or type(classifier).__name__
    if output.output_name not in (None, OUTPUT):
        raise OutputError(f"{who} has no output {output.output_name!r}; its only one is {OUTPUT!r}.")
    check_inputs(classifier, example, who)
    inputs = tuple(TensorSpec(n, str(a.dtype), (None, *a.shape[1:])) for n, a in example.items())
    spec = ModelSpec(
        inputs=inputs, output=TensorSpec(OUTPUT, "float64", (None, len(classifier.classes_))), name=who,
        class_names=class_names_of(classifier), framework="sklearn",
    )  # fmt: skip
    return SklearnModel(classifier, spec)


def check_inputs(classifier: Any, example: Inputs, who: str) -> None:
    """Raises a `ModelError` where the data is neither one matrix nor the columns that the estimator was fitted on."""
    columns = column_names(classifier)
    if columns is not None and all(n in example for n in columns):
        return
    if len(example) == 1 and next(iter(example.values())).ndim <= 2:
        return
    found = ", ".join(f"{n}: {a.dtype} {a.shape[1:]}" for n, a in list(example.items())[:10])
    wanted = f"one matrix (n, {feature_count(classifier) or 'features'})"
    if columns is not None:
        wanted += f" or the columns {', '.join(map(repr, columns[:10]))}{', …' if len(columns) > 10 else ''}"
    raise ModelError(
        f"{who} takes {wanted}; the data has {found}. If the last one holds the labels, give it with labels=; otherwise choose or "
        "rename columns with input_getter=."
    )


def frame_maker() -> Any:
    """Makes a data frame of columns: pandas' where it is installed, else polars', else an Arrow table."""
    try:
        import pandas
    except ImportError:
        pass
    else:
        # pandas would guess a type for text, in which None becomes NaN.
        return lambda columns: pandas.DataFrame({n: pandas.Series(a, dtype=a.dtype) for n, a in columns.items()})
    try:
        import polars
    except ImportError:
        return _arrow_table
    return polars.DataFrame


def _arrow_table(columns: dict[str, Array]) -> Any:
    import pyarrow

    # from_pandas takes NaN in text for what is missing.
    return pyarrow.table({name: pyarrow.array(a, from_pandas=a.dtype.kind == "O") for name, a in columns.items()})


def _column(inputs: Mapping[str, Array], name: str) -> Array:
    column = inputs[name]
    column = column[:, 0] if column.ndim == 2 and column.shape[1] == 1 else column
    # Text as Python's own, as it is in frames; integers stay, since they may be categories.
    return column.astype({"U": object, "S": object, "f": np.float64}.get(column.dtype.kind, column.dtype))


def _finite(inputs: Inputs) -> NDArray[np.bool_]:
    """Which rows hold no NaN and no infinity, (n,)."""
    rows = len(next(iter(inputs.values())))
    sound = np.ones(rows, bool)
    for array in inputs.values():
        if array.dtype.kind == "f":
            sound &= np.isfinite(array).reshape(rows, -1).all(axis=1)
    return sound
