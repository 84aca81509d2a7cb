"""What an ONNX file of others takes and gives, by its graph alone: it has no metadata of fo-onnx.

ONNX says nowhere which axis is the batch. Rows are given along the first axis of every input, so that a file whose
graph shows another one is refused: it would give rows, and wrong ones.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from ..contracts.spec import ModelSpec, TensorSpec, output_classes
from ..distributions.probabilities import check_raw_shape
from ..errors import ModelError, OutputError
from ..plugin_kit.graph_checks import graph_inputs, tensor_spec
from .class_outputs import CLASSES_OF
from .onnx_file import DOING

if TYPE_CHECKING:
    import onnx

_FLOATS = ("float16", "float32", "float64", "bfloat16")
WAY_OUT = (
    "Change the graph (a Transpose, a constant), or run the file in a function over numpy arrays, which "
    "is a model too: fo_onnx.generate(function, data)."
)


def read_spec(proto: onnx.ModelProto, path: Path, output_name: str | None) -> ModelSpec:
    """Return what the graph of a file says of its inputs and of the output that is meant.

    Raises:
        ModelError: An input is no batch of numbers, or several outputs could be meant.
        OutputError: The output is text, or a sequence.
    """
    inputs = tuple(_as_text(i, proto) for i in graph_inputs(proto))
    unusable = [i.name for i in inputs if not i.dtype]
    if unusable or not inputs:
        what = f"the input {unusable[0]!r} is no tensor" if unusable else "it takes no input"
        raise ModelError(f"{DOING} {path}: {what}; a classifier over tensors was expected.")
    output = _choose_output([tensor_spec(v) for v in proto.graph.output], path, output_name)
    if not output.dtype:
        raise OutputError(
            f"{DOING} {path}: its output {output.name!r} is text or a sequence; class scores as floating-point numbers "
            "were expected. Choose another output with output_name=."
        )
    _require_batch_first(proto, inputs, output, path)
    # The columns of an output that was a map have names; else those of the output with the predicted class are theirs.
    text = next((p.value for p in proto.metadata_props if p.key == CLASSES_OF + output.name), "null")
    names = json.loads(text) or _read_class_names(proto, output)
    spec = ModelSpec(inputs=inputs, output=output, classes=output_classes(output.shape), name=path.stem)
    return ModelSpec.from_dict({**spec.to_dict(), "class_names": names})


def require_class_scores(spec: ModelSpec, path: Path) -> None:
    """Raise an `OutputError` if the output cannot be one row of class scores per sample, as far as its file tells.

    An ``output_transform`` takes any output, so that this is not asked with one.
    """
    output = spec.output
    if output.dtype not in _FLOATS:
        raise OutputError(
            f"{DOING} {path}: its output {output.name!r} is of type {output.dtype}; class scores as floating-point numbers "
            "were expected. Choose another output with output_name=, or make distributions of it with output_transform=."
        )
    if output.shape:
        check_raw_shape(output.shape, None, None, f"the model {path}")


def _as_text(tensor: TensorSpec, proto: onnx.ModelProto) -> TensorSpec:
    """Return an input of text as one, since a tensor that is no numeric one has no type here; any other as it is."""
    import onnx

    value = next(v for v in proto.graph.input if v.name == tensor.name)
    if value.type.tensor_type.elem_type != onnx.TensorProto.STRING:
        return tensor
    axes = _axes(value) or []
    return TensorSpec(tensor.name, "str", tuple(axis if isinstance(axis, int) else None for axis in axes))


def _choose_output(outputs: list[TensorSpec], path: Path, name: str | None) -> TensorSpec:
    names = [o.name for o in outputs]
    if name is not None:
        if name not in names:
            raise ModelError(f"{DOING} {path}: it has no output {name!r}; its outputs are {names}.")
        return outputs[names.index(name)]
    if "logits" in names:
        return outputs[names.index("logits")]
    # Beside the scores, classifiers of skl2onnx give the predicted class: integers, or text.
    scores = [o for o in outputs if o.dtype in _FLOATS]
    if len(outputs) == 1 or (len(scores) == 1 and len(outputs) == 2):
        return (scores or outputs)[0]
    raise ModelError(f"{DOING} {path}: it has several outputs, {names}; say which one with output_name=.")


def _read_class_names(proto: onnx.ModelProto, scores: TensorSpec) -> list[str] | None:
    """Return the names of the classes if the file's one other output is the predicted class, as skl2onnx and others give it.

    That output comes from the classifier's own node, which holds them, or from a lookup in an array of them. Classes that
    are the numbers from 0 on have no names.
    """
    import onnx

    others = [o.name for o in proto.graph.output if o.name != scores.name]
    producers = {out: node for node in proto.graph.node for out in node.output}
    constants = {t.name: t for t in proto.graph.initializer}
    classes = output_classes(scores.shape)
    node = producers.pop(others[0], None) if len(others) == 1 and classes is not None else None
    while node is not None and node.op_type in ("Identity", "Reshape", "Cast", "Squeeze") and node.input:
        node = producers.pop(node.input[0], None)
    if node is None:
        return None
    labels: list[bytes | int] = []
    lookup = constants.get(node.input[0]) if node.op_type == "ArrayFeatureExtractor" and node.input else None
    if lookup is not None and math.prod(lookup.dims) == classes and lookup.data_location != onnx.TensorProto.EXTERNAL:
        if lookup.data_type == onnx.TensorProto.STRING:
            labels = [*lookup.string_data]
        elif lookup.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
            labels = onnx.numpy_helper.to_array(lookup).ravel().tolist()
    elif node.domain == "ai.onnx.ml":
        labels = [label for a in node.attribute if a.name.startswith("classlabels") for label in (*a.strings, *a.ints)]
    names = [label.decode() if isinstance(label, bytes) else str(label) for label in labels]
    if len(set(names)) != classes or names == [str(i) for i in range(len(names))]:
        return None
    return names


def _require_batch_first(
    proto: onnx.ModelProto, inputs: tuple[TensorSpec, ...], output: TensorSpec, path: Path
) -> None:
    """Raise a `ModelError` for an input whose first axis is not the batch, as far as lengths and names of axes tell.

    It is not where the axis has another length than the batch of the output or of the other inputs (a recurrent state of
    (layers, batch, width)), where a later axis has the name of the output's batch, and where it is the output's classes
    (CLIP's texts beside its images).
    """
    axes = {v.name: _axes(v) for v in (*proto.graph.input, *proto.graph.output)}
    scalar = next((i for i in inputs if axes[i.name] == []), None)
    if scalar is not None:
        raise ModelError(
            f"{DOING} {path}: its input {scalar.name!r} is one number for a whole batch; inputs with a batch axis were "
            f"expected. {WAY_OUT}"
        )
    batch, *classes = axes[output.name] or [None]
    firsts = {i.name: i.shape[0] for i in inputs if i.shape}
    lengths = {first for first in firsts.values() if first is not None}
    length = batch if isinstance(batch, int) else 1 if 1 in lengths else None
    # An axis of one beside open ones is run row by row, which is right whatever it means.
    differ = len({*firsts.values()}) > 1 and lengths != {1}
    for tensor in inputs:
        first, *later = axes[tensor.name] or [None]
        is_named_otherwise = first != batch and (
            (isinstance(batch, str) and batch in later) or (isinstance(first, str) and first in classes)
        )
        if is_named_otherwise or (differ and isinstance(first, int) and first != length):
            raise ModelError(
                f"{DOING} {path}: the batch axis of its input {tensor} is not its first, by the shapes of "
                f"{', '.join(str(i) for i in (*inputs, output) if i is not tensor)}. Rows are given along the first axis of "
                f"every input. {WAY_OUT}"
            )


def _axes(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Return the axes of a graph's input or output: a length, a name, or ``None``; ``None`` if nothing is known of them.

    What is no name (``?``, ``-1``), or is ``None`` in words, stands for any length in some converters' files.
    """
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    names = [d.dim_param if d.dim_param.isidentifier() and d.dim_param != "None" else None for d in tensor.shape.dim]
    return [d.dim_value if d.dim_value > 0 else name for d, name in zip(tensor.shape.dim, names, strict=True)]
