"""Estimators in scikit-learn: the reference of every comparison, and the runner of what ONNX cannot run."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array, Inputs, count_rows
from fo_onnx.contracts.exporter import Devices
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import DeviceError, ModelError, OutputError, RunError, first_line
from fo_onnx.sources.categories import categories_of

from .classifier import OUTPUT, class_names_of, classifier_of, column_names
from .detect import package_of
from .exactness import parts_of

UNKNOWN = "unknown categor"
"""In the messages of scikit-learn's encoders about a category that they were not fitted on."""

TAKE_COLUMNS_APART = ("ColumnTransformer", "BaggingClassifier")
"""Estimators that may take in one column what they refuse in another; all others check their rows as a whole."""


class SklearnModel:
    """An estimator's ``predict_proba`` with arrays in and an array out.

    It gets rows in float64, in which scikit-learn computes; what it would round to float32 on the way is not
    rounded.
    """

    device = "cpu"
    original = None

    def __init__(self, classifier: Any, spec: ModelSpec) -> None:
        self.spec = spec
        self._classifier: Any = classifier
        self._has_taken_rows = False
        self.takes_columns_apart = any(
            package_of(part) != "sklearn" or type(part).__name__ in TAKE_COLUMNS_APART for part in parts_of(classifier)
        )
        columns = column_names(classifier)
        named = columns is not None and {i.name for i in spec.inputs}.issuperset(columns)
        self._columns = columns if named else None
        # Integers can be categories to other packages; scikit-learn computes in float64 anyway.
        numbers = dict.fromkeys("biuf" if package_of(classifier) == "sklearn" else "f", np.float64)
        self._dtypes: dict[str, Any] = {**numbers, "U": object, "S": object}

    def forward(self, inputs: Inputs) -> Array:
        """Return distributions (n, classes), float64; NaN for rows that the estimator refuses, as it does NaN or an unknown category.

        Raises:
            RunError: The estimator refuses all rows, and has not taken one before, so that the data are no rows of it.
        """
        refusals: list[Exception] = []
        probs = self._predict_taken(inputs, refusals)
        if len(refusals) < len(probs) or not refusals:
            self._has_taken_rows = True
        elif not self._has_taken_rows and UNKNOWN not in str(refusals[0]) and _finite_rows(inputs).any():
            shapes = ", ".join(f"{n}: {a.dtype} {tuple(a.shape)}" for n, a in inputs.items())
            raise RunError(
                f"running {self.spec.name} in sklearn on {shapes} failed: {first_line(refusals[0])}"
            ) from refusals[0]
        return probs

    def _predict_taken(self, inputs: Inputs, refusals: list[Exception]) -> Array:
        """Return distributions, NaN for each row that is refused alone; its error is added to `refusals`."""
        try:
            return self._predict(inputs)
        except MemoryError:
            raise
        except Exception as err:
            # An estimator, which may be anybody's, raises what it likes.
            refusal = err
        finite = _finite_rows(inputs)
        probs = np.full((len(finite), len(self._classifier.classes_)), np.nan)
        if len(finite) <= 1:
            refusals += [refusal] * len(finite)
            return probs
        # One row that is refused refuses its whole batch: finite rows are tried apart, then eighths.
        parts = [np.flatnonzero(finite), np.flatnonzero(~finite)]
        if min(map(len, parts)) == 0:
            parts = np.array_split(np.arange(len(finite)), min(8, len(finite)))
        for rows in parts:
            probs[rows] = self._predict_taken({n: a[rows] for n, a in inputs.items()}, refusals)
        return probs

    def close(self) -> None:
        """Let the estimator go."""
        self._classifier = None

    def _predict(self, inputs: Inputs) -> Array:
        if self._columns is None:
            (array,) = inputs.values()
            # A copy, always: an estimator made with copy=False works in place, on what is the caller's own.
            rows: Any = array.astype(self._dtypes.get(array.dtype.kind, array.dtype))
        else:
            rows = _make_frame({n: inputs[n] for n in self._columns})
        with warnings.catch_warnings():
            # Columns without names are taken in the order of the fit, as documented.
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            return np.asarray(self._classifier.predict_proba(rows), np.float64)


def open_native(
    model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
) -> SklearnModel:
    """Return `model` as a `SklearnModel`; see `fo_onnx.contracts.Exporter.native`."""
    classifier = classifier_of(model)
    if device not in ("auto", "cpu"):
        raise DeviceError(f"device={device!r} was asked for, but scikit-learn runs on the CPU only; say device='cpu'.")
    model_name = options.model_name or type(classifier).__name__
    if output.output_name not in (None, OUTPUT):
        raise OutputError(f"{model_name} has no output {output.output_name!r}; its only one is {OUTPUT!r}.")
    _check_inputs(classifier, example, model_name)
    output_name = OUTPUT
    while output_name in example:  # as a column may be called
        output_name += "_"
    spec = ModelSpec(
        inputs=tuple(TensorSpec(n, str(a.dtype), (None, *a.shape[1:])) for n, a in example.items()),
        output=TensorSpec(output_name, "float64", (None, len(classifier.classes_))),
        name=model_name,
        class_names=class_names_of(classifier),
        framework="sklearn",
    )
    return SklearnModel(classifier, spec)


def _check_inputs(classifier: Any, example: Inputs, model_name: str) -> None:
    """Raise a `ModelError` if the data is neither one matrix nor the columns that the estimator was fitted on."""
    columns = column_names(classifier)
    if columns is not None and all(n in example for n in columns):
        return
    if len(example) == 1 and next(iter(example.values())).ndim <= 2:
        return
    inputs = ", ".join(f"{n}: {a.dtype} {a.shape[1:]}" for n, a in list(example.items())[:10])
    wanted = f"one matrix (n, {getattr(classifier, 'n_features_in_', 'features')})"
    if columns is not None:
        wanted += f" or the columns {', '.join(map(repr, columns[:10]))}{', …' if len(columns) > 10 else ''}"
    raise ModelError(
        f"{model_name} takes {wanted}; the data has {inputs}. If the last one holds the labels, give it with labels=; otherwise choose "
        "or rename columns with input_getter=."
    )


def _make_frame(columns: dict[str, Array]) -> Any:
    """Return a data frame of columns (n,): pandas' if it is installed, else polars', else an Arrow table."""
    try:
        import pandas
    except ImportError:
        pass
    else:
        return pandas.DataFrame({n: _make_series(pandas, array) for n, array in columns.items()})
    columns = {n: _column(array) for n, array in columns.items()}
    try:
        import polars
    except ImportError:
        import pyarrow

        # from_pandas takes NaN in text for what is missing.
        return pyarrow.table({n: pyarrow.array(a, from_pandas=a.dtype.kind == "O") for n, a in columns.items()})
    return polars.DataFrame(columns)


def _make_series(pandas: Any, array: Array) -> Any:
    """Return a column as a series, of categories if it came as such."""
    column, categories = _column(array), categories_of(array)
    if categories is not None:
        # pandas itself matches by dtype, and would take True for missing among 1.0 and NaN.
        places = {value: i for i, value in enumerate(categories.values)}
        kind = pandas.CategoricalDtype(categories.values, ordered=categories.ordered)
        return pandas.Series(pandas.Categorical.from_codes([places.get(v, -1) for v in column.tolist()], dtype=kind))
    # pandas would guess a type for text, in which None becomes NaN.
    return pandas.Series(column, dtype=column.dtype)


def _column(array: Array) -> Array:
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    # Text as Python's own, as it is in frames; integers stay, since they may be categories.
    return column.astype({"U": object, "S": object, "f": np.float64}.get(column.dtype.kind, column.dtype))


def _finite_rows(inputs: Inputs) -> Array:
    """Return which rows hold neither NaN nor infinity, (n,) bool."""
    finite = np.ones(count_rows(inputs), bool)
    for array in inputs.values():
        if array.dtype.kind == "f":
            finite &= np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    return finite
