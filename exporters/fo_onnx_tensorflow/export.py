"""TensorFlow functions to ONNX files.

The steps are those of ``tf2onnx.convert.from_function``, which cannot be used as it is: it leaves tensors that the
function captured as inputs that nobody feeds, it gives models above protobuf's limit as its own kind of archive (and
not at all with numpy 2, since it calls ``np.product``), and it logs what it cannot convert instead of raising it.
"""

from __future__ import annotations

import collections
import gc
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import tensorflow as tf
from tf2onnx import constants, optimizer, tf_loader, tfonnx

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError, first_line, root_cause
from fo_onnx.plugin_kit.graph_checks import require_known_operators

from .foreign_nodes import foreign_ops
from .gradients import forget_gradients
from .handlers.registry import register_own_handlers
from .onnx_edits import fold_sigmoids, rename_tensors, unused_name
from .quiet import Records, quiet
from .weights import Weights, put_back, take_weights, weight_bytes

EXTERNAL_DATA_BYTES = 1_800_000_000
"""From this size of weights on they go to a file of their own. Protobuf serialises at most 2 GiB."""
MOST_LEFT_BYTES = 500_000_000
"""To free copies that tf2onnx leaves behind takes a few tenths of a second, so it waits until they are so large together."""
OUTPUT = "output"
LARGEST_OPSET = max(constants.OPSET_TO_IR_VERSION)
"""The newest operator set that tf2onnx writes."""

_one_at_a_time = threading.RLock()
"""tf2onnx keeps its functions, handlers and numbering in globals."""


def write_onnx(
    function: Callable[..., tf.Tensor], inputs: Sequence[TensorSpec], path: Path, *, opset: int, model_name: str
) -> TensorSpec:
    """Write a TensorFlow function to `path` as ONNX, with a dynamic batch axis and one output.

    Weights go to a file in the same folder, called like it with ``.data`` added, where they exceed
    `EXTERNAL_DATA_BYTES`.

    Args:
        function: Takes tensors in the order of `inputs` and returns one. It may be a ``tf.function`` itself. It is
            traced within ``fo_onnx_tensorflow.foreign_nodes.foreign_ops``.
        inputs: The inputs of the file: names, numpy dtypes, shapes with None for what is dynamic; axis 0 always is.
        path: Where to write; what is there is replaced.
        opset: The ONNX operator set.
        model_name: The name of the model, for messages.

    Returns:
        The output, called ``"output"`` (``"output_1"``, … where an input is called so): its dtype and shape.

    Raises:
        ExportError: The function could not be traced or converted; it names the operator, or the first cause.
    """
    if opset > LARGEST_OPSET:
        raise ExportError(
            f"opset={opset} was asked for {model_name}, and tf2onnx writes operator sets up to {LARGEST_OPSET}; "
            f"say opset={LARGEST_OPSET} or less."
        )
    with _one_at_a_time, quiet() as records, foreign_ops(), register_own_handlers():
        try:
            traced = _trace(function, inputs)
            spec = _output_spec(traced, inputs, model_name)
            # Weights of a large model do not go through tf2onnx, which copies them for each of its steps.
            large = weight_bytes(traced) >= EXTERNAL_DATA_BYTES
            proto, weights = _convert(traced, opset, large)
        except FoOnnxError:
            raise
        except Exception as err:
            raise _failure(model_name, records, err) from err
        if records.failures:
            error = records.failures[0][1]
            raise _failure(model_name, records, error) from error
        require_known_operators(proto, "tf2onnx", model_name)
    # The file is completed: what an output means, the weights, the names that callers use.
    fold_sigmoids(proto)
    data = path.with_name(f"{path.name}.data")
    if weights:
        put_back(proto, weights, data)
    _name_inputs_and_output(proto, traced, inputs, spec)
    _save(proto, path, model_name)
    return spec


def _trace(function: Callable[..., tf.Tensor], inputs: Sequence[TensorSpec]) -> Any:
    """Return the graph of the function, with placeholders in the order of `inputs`."""
    signature = [
        tf.TensorSpec([None, *i.shape[1:]], tf.as_dtype(i.dtype), name=f"input_{n}") for n, i in enumerate(inputs)
    ]

    def flat(*tensors: tf.Tensor) -> tf.Tensor:
        # Identity, since a function that returns its input gives a graph without nodes.
        return tf.identity(function(*tensors))

    traced = tf.function(flat, autograph=False, input_signature=signature).get_concrete_function()
    forget_gradients(traced.graph)
    return traced


def _output_spec(traced: Any, inputs: Sequence[TensorSpec], model_name: str) -> TensorSpec:
    output = traced.outputs[0]
    shape = output.shape
    if shape.rank is None:
        raise ExportError(
            f"the shape of what {model_name} returns cannot be determined from its graph; an array (n, classes) was expected. "
            "A tf.ensure_shape in front of its return value says what it is."
        )
    if shape.rank == 0 or shape[0] is not None:
        raise ExportError(
            f"{model_name} returns an array of shape {tuple(shape)} for every batch size; (n, classes) with the batch axis first "
            "was expected. A function of one sample has to be mapped over the batch."
        )
    return TensorSpec(
        unused_name(OUTPUT, [i.name for i in inputs]), output.dtype.as_numpy_dtype().dtype.name, (None, *shape[1:])
    )


def _convert(traced: Any, opset: int, large: bool) -> tuple[onnx.ModelProto, Weights]:
    """Return the graph as ONNX, with tf2onnx's names; and the weights of a large one, for which it has inputs."""
    captures = {placeholder.name for _, placeholder in traced.graph.captures}
    fed = [t.name for t in traced.inputs if t.dtype != tf.resource]
    names_in, names_out = [n for n in fed if n not in captures], [t.name for t in traced.outputs]
    with tf.device("/cpu:0"):
        # Variables become constants; captured tensors stay placeholders until they are made constants here.
        frozen = tf_loader.from_function(traced, fed, names_out, large_model=large)
        weights = take_weights(frozen, traced, large=large)
        has_captured = len(names_in) < len(fed)
        names_in += [f"{n}:0" for n in weights]
        if has_captured or large:
            # What depends on the captured tensors can be folded only now; and large graphs were not folded yet.
            with tf.Graph().as_default():
                frozen = tf_loader.tf_optimize(names_in, names_out, frozen)
        # tf2onnx continues after a node that it cannot convert; its records say which.
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                graph, continue_on_error=True, opset=opset, input_names=names_in, output_names=names_out
            )
            steps = _collect_between(optimizer._get_optimizers(), frozen.ByteSize())
            proto: onnx.ModelProto = optimizer.optimize_graph(converted, optimizers=steps).make_model("")
    return proto, weights


def _collect_between(
    steps: Mapping[str, Callable[[], Any]], graph_bytes: int
) -> collections.OrderedDict[str, Callable[[], Any]]:
    """Return tf2onnx's optimisation steps, which free the copies of the graph that are left behind.

    It copies the graph with its weights for each step, and a graph refers to itself: Python frees it when it gets round to that,
    which was never in a process with many objects (24 GB, of nets with 100 MB of weights).
    """
    left_bytes = 0

    def collect_before(make_step: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            nonlocal left_bytes
            left_bytes += graph_bytes
            if left_bytes > MOST_LEFT_BYTES:
                gc.collect()
                left_bytes = 0
            return make_step()

        return make

    return collections.OrderedDict((name, collect_before(make_step)) for name, make_step in steps.items())


def _failure(model_name: str, records: Records, err: BaseException) -> ExportError:
    """Return the error for a conversion that failed. tf2onnx logs the cause of what it raises later."""
    if records.failures:
        node, error = records.failures[0]
        cause = f"node {node}: {first_line(error)}"
    else:
        cause = first_line(root_cause(err)) + (f" ({records.messages[0].splitlines()[0]})" if records.messages else "")
    return ExportError(f"tf2onnx cannot convert {model_name}: {cause}")


def _name_inputs_and_output(
    proto: onnx.ModelProto, traced: Any, inputs: Sequence[TensorSpec], spec: TensorSpec
) -> None:
    """Name inputs, output and their axes, and order the inputs; inputs that are not used come back."""
    graph = proto.graph
    names = {t.name: i.name for t, i in zip(traced.inputs, inputs, strict=False)}
    rename_tensors(proto, {**names, traced.outputs[0].name: spec.name})
    # All of them anew: tf2onnx drops those that nothing reads, and numbers dynamic axes anew in each process.
    del graph.input[:], graph.output[:]
    graph.input.extend(_value_info(i) for i in inputs)
    graph.output.append(_value_info(spec))


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    axes = ["batch", *(d if d is not None else f"{spec.name}_{n}" for n, d in enumerate(spec.shape[1:], 1))]
    dtype = onnx.helper.np_dtype_to_tensor_dtype(tf.as_dtype(spec.dtype).as_numpy_dtype().dtype)
    return onnx.helper.make_tensor_value_info(spec.name, dtype, axes)


def _save(proto: onnx.ModelProto, path: Path, model_name: str) -> None:
    external = any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer)
    try:
        if not external:
            onnx.checker.check_model(proto, full_check=True)
        path.write_bytes(proto.SerializeToString())
        if external:  # which only a file can be checked with
            onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        # The second is for dtypes that an operator does not take; tf2onnx leaves them to whoever runs the model.
        raise ExportError(f"tf2onnx made an invalid model of {model_name}: {first_line(err)}") from err
