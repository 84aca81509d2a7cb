"""Estimators to ONNX by skl2onnx, in float64, with the distributions as the only output.

scikit-learn computes in float64 where it is given float64, so the graph does: rows of any dtype are cast first. What
skl2onnx names and leaves behind (labels, maps of probabilities) is taken out of the graph again.
"""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fo_onnx.errors import ExportError, PluginError
from fo_onnx.model import OnnxModel, describe
from fo_onnx.operators import require_known_operators
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Array, Inputs
from fo_onnx.spec import ModelSpec, TensorSpec

from .interfaces import JOINED, MATRIX, OUTPUT, class_names_of, classifier_of, column_names, without_wrappers
from .native import check_inputs
from .outlines import finished

if TYPE_CHECKING:
    import onnx

ML_OPSET = 3
"""The operator set of ``ai.onnx.ml``: the first whose trees compare in float64 too."""
_CONVERTING = threading.Lock()
"""skl2onnx is patched for the time of a conversion, in the whole process."""


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Writes `model` to `path`; see `fo_onnx.protocols.Exporter.export`."""
    classifier = classifier_of(model)
    who = options.model_name or type(classifier).__name__
    check_inputs(classifier, example, who)
    columns = {n: example[n] for n in column_names(classifier) or () if n in example}
    inputs = columns or {MATRIX: next(iter(example.values()))}
    proto = _converted(without_wrappers(classifier), inputs, options.opset, who)
    specs = finished(proto, inputs, classifier)
    require_known_operators(proto, "skl2onnx", who)
    spec = ModelSpec(
        inputs=specs, output=TensorSpec(OUTPUT, "float64", (None, len(classifier.classes_))), name=who,
        class_names=class_names_of(classifier), framework="sklearn",
    )  # fmt: skip
    if any(s.dtype == "str" for s in specs):
        # What a graph says of its inputs has no numpy dtype for text; the file's own record has.
        describe(proto, OnnxModel(path, spec))
    path.write_bytes(proto.SerializeToString())
    return spec


def _converted(classifier: Any, inputs: Inputs, opset: int, who: str) -> onnx.ModelProto:
    try:
        from skl2onnx import convert_sklearn
    except ImportError as err:
        raise PluginError(f"exporting {who} needs skl2onnx ({err}): pip install 'fo-onnx[sklearn]'.") from err
    from .converters import converters
    from .patches import patched

    initial = [(name, _type_of(name, array, who)) for name, array in inputs.items()]
    if len(initial) > 1 and not _by_name(classifier):
        # Whatever is no ColumnTransformer takes one matrix, which is put together from the columns afterwards.
        initial = [(JOINED, _matrix_type(inputs, who))]
    try:
        with _CONVERTING, patched(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of skl2onnx and of numpy, on what it does with older versions in mind
            found: onnx.ModelProto = convert_sklearn(
                classifier, initial_types=initial, target_opset={"": opset, "ai.onnx.ml": ML_OPSET}, name=who,
                custom_conversion_functions=converters(),
            )  # fmt: skip
    except ExportError:
        raise
    except Exception as err:
        # skl2onnx raises what its converters stumble over: its own errors, and those of numpy and of ONNX.
        text = " ".join(str(err).split())
        culprit = _named_in(text, classifier)
        raise ExportError(
            f"skl2onnx cannot convert {who}{culprit}: {type(err).__name__}: {text[:300].rstrip('.')}."
        ) from err
    _restore_names(found.graph, [name for name, _ in initial])
    # The file says the newest operator set among those that its nodes came with; they mean the same in the one asked for, for
    # which skl2onnx wrote them.
    default = next((o for o in found.opset_import if o.domain in ("", "ai.onnx")), None) or found.opset_import.add()
    default.version = opset
    return found


def _restore_names(graph: onnx.GraphProto, names: list[str]) -> None:
    """Calls the inputs as they were given, in whose names skl2onnx replaces what is no letter."""
    renamed = {i.name: name for i, name in zip(graph.input, names, strict=True) if i.name != name}
    for given in graph.input:
        given.name = renamed.get(given.name, given.name)
    for node in graph.node:
        for place, used in enumerate(node.input):
            node.input[place] = renamed.get(used, used)


def _type_of(name: str, array: Array, who: str) -> Any:
    """skl2onnx's type of an input: text, or float64 for numbers of any kind."""
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    shape = [None, array.shape[1] if array.ndim == 2 else 1]
    if array.dtype.kind == "U":
        return StringTensorType(shape)
    if array.dtype.kind not in "biuf":
        raise ExportError(
            f"the input {name!r} of {who} has the dtype {array.dtype}, as text with missing values has; ONNX's text has no missing "
            "values. Fill them with a word of their own before the model sees them."
        )
    return DoubleTensorType(shape)


def _matrix_type(inputs: Inputs, who: str) -> Any:
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    kinds = {type(_type_of(name, array, who)) for name, array in inputs.items()}
    if len(kinds) > 1:
        raise ExportError(
            f"{who} takes columns of text and of numbers as one matrix, which ONNX has not; use a ColumnTransformer."
        )
    kind = StringTensorType if StringTensorType in kinds else DoubleTensorType
    return kind([None, len(inputs)])


def _by_name(classifier: Any) -> bool:
    from .discontinuities import parts_of

    return any(type(e).__name__ == "ColumnTransformer" for e in parts_of(classifier))


def _named_in(text: str, classifier: Any) -> str:
    """The part of a pipeline that a message names, for the error."""
    from .discontinuities import parts_of

    names = dict.fromkeys(type(e).__name__ for e in parts_of(classifier))
    culprit = next((n for n in names if n in text and n != type(classifier).__name__), None)
    return f" because of {culprit}" if culprit else ""
