"""Estimators to ONNX by skl2onnx, in float64, with the distributions as the only output.

scikit-learn computes in float64 if it is given float64, so the graph does: rows of any dtype are cast first. The outputs
that skl2onnx adds (labels, maps of probabilities) are taken out of the graph again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import ExportError, PluginError, first_line
from fo_onnx.plugin_kit.graph_checks import require_known_operators

from .classifier import MATRIX, classifier_of, column_names, without_wrappers
from .detect import package_of
from .exactness import has_converter, parts_of
from .graph_interface import set_interface
from .native import open_native

if TYPE_CHECKING:
    import onnx

ML_OPSET = 3
"""The operator set of ``ai.onnx.ml``: the first whose trees compare in float64 too."""


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Write `model` to `path`; see `fo_onnx.contracts.Exporter.export`."""
    native = open_native(model, example, "auto", options, output)
    columns = {n: example[n] for n in column_names(model) or () if n in example}
    inputs = columns or {MATRIX: next(iter(example.values()))}
    proto = _convert(without_wrappers(classifier_of(model)), inputs, options.opset, native.spec.name)
    proto = set_interface(proto, inputs, native)
    require_known_operators(proto, "skl2onnx", native.spec.name)
    path.write_bytes(proto.SerializeToString())
    kinds = {n: "str" if a.dtype.kind == "U" else str(a.dtype) for n, a in inputs.items()}
    return replace(native.spec, inputs=tuple(TensorSpec(n, kinds[n], (None, *a.shape[1:])) for n, a in inputs.items()))


def _convert(classifier: Any, inputs: Inputs, opset: int, model_name: str) -> onnx.ModelProto:
    try:
        from skl2onnx import convert_sklearn
    except ImportError as err:
        raise PluginError(f"exporting {model_name} needs skl2onnx ({err}): pip install 'fo-onnx[sklearn]'.") from err
    _require_converters([classifier])
    from .converters.ensembles import classifier_converters
    from .converters.preprocessing import preprocessing_converters
    from .converters.refusals import checked_steps
    from .converters.sigmoids import expand_sigmoids

    # Inputs are checked first: of those that ONNX has not, skl2onnx would name neither the column nor the cure.
    types = [(name, _type_of(name, array, model_name)) for name, array in inputs.items()]
    if len(types) > 1 and not any(type(e).__name__ == "ColumnTransformer" for e in parts_of(classifier)):
        # All others take one matrix, which is put together from the columns afterwards.
        kinds = {type(kind) for _, kind in types}
        if len(kinds) > 1:
            raise ExportError(
                f"{model_name} takes columns of text and of numbers as one matrix, which ONNX has not; use a ColumnTransformer."
            )
        types = [(MATRIX, kinds.pop()([None, len(inputs)]))]
    converters = classifier_converters() | preprocessing_converters()
    converters |= checked_steps(parts_of(classifier), converters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of skl2onnx and of numpy, on older versions
            proto: onnx.ModelProto = convert_sklearn(
                classifier, initial_types=types, target_opset={"": opset, "ai.onnx.ml": ML_OPSET}, name=model_name,
                custom_conversion_functions=converters,
            )  # fmt: skip
    except Exception as err:
        # skl2onnx raises errors of its own, and those of numpy and of ONNX.
        _require_converters(parts_of(classifier), err)
        names = dict.fromkeys(type(e).__name__ for e in parts_of(classifier))
        culprit = next((n for n in names if n in str(err) and n != type(classifier).__name__), None)
        cause = f" because of {culprit}" if culprit else ""
        raise ExportError(f"skl2onnx cannot convert {model_name}{cause}: {first_line(err)}.") from err
    # The file names the newest operator set of its nodes; they mean the same in the requested one, for which skl2onnx wrote them.
    default = next((o for o in proto.opset_import if o.domain in ("", "ai.onnx")), None) or proto.opset_import.add()
    default.version = opset
    return expand_sigmoids(proto)


def _require_converters(estimators: Iterable[Any], cause: Exception | None = None) -> None:
    """Raise an `ExportError` if one of other packages' estimators has no converter."""
    for estimator in estimators:
        if package_of(estimator) != "sklearn" and not has_converter(estimator):
            raise ExportError(f"{type(estimator).__name__} ({package_of(estimator)}) has no converter.") from cause


def _type_of(name: str, array: Array, model_name: str) -> Any:
    """Return skl2onnx's type of an input: text, or float64 for numbers of any kind."""
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    shape = [None, array.shape[1] if array.ndim == 2 else 1]
    if array.dtype.kind == "U":
        return StringTensorType(shape)
    if array.dtype.kind not in "biuf":
        raise ExportError(
            f"the input {name!r} of {model_name} has the dtype {array.dtype}, in which text may be missing; ONNX's text has no "
            "missing values. Where none is missing, numpy's own text, x.astype(str), becomes ONNX."
        )
    return DoubleTensorType(shape)
