"""JAX functions to ONNX by jax2onnx: the route for jax >= 0.7.2, whose jax2tf makes no plain TensorFlow graphs any more.

From then on ``jax2tf.convert`` ignores ``native_serialization=False`` (``jax/experimental/jax2tf/jax2tf.py``), and tf2onnx cannot
convert the operator XlaCallModule in which native serialization results. jax2onnx goes from a jaxpr to ONNX by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np
import onnx
from fo_onnx_tensorflow.onnx_edits import unused_name
from onnx import helper

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError, first_line, root_cause
from fo_onnx.plugin_kit.graph_checks import tensor_spec, unknown_operators

from ..flat_function import RAW_OUTPUT, abstract_inputs
from ..jaxpr.half_precision import in_float32
from .converter import open_jax2onnx
from .indices import clamp_indices, clamps_indices, holds_lookups
from .pools import all_graphs, narrow_pools

EXTERNAL_DATA_BYTES = 1_800_000_000
"""From this size of weights on they go into a file beside the model. Protobuf serialises at most 2 GiB."""
_RANDOM = {"RandomUniform", "RandomUniformLike"}
"""What jax2onnx 0.17.1 writes for the bits of jax.random, which follow from the key alone (plugins/jax/random/random_bits.py)."""
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""Dtypes of 64 bits, and what JAX makes of them if they are disabled."""


def write_onnx(
    function: Callable[..., Any], inputs: Sequence[TensorSpec], path: Path, *, opset: int, model_name: str
) -> TensorSpec:
    """Write a JAX function to `path` as ONNX, with a dynamic batch axis and one output.

    The function is traced with 64-bit types disabled. Weights above `EXTERNAL_DATA_BYTES` go to a file next to `path`, called like
    it with ``.data`` added.

    Args:
        function: Takes arrays in the order of `inputs` and returns one array (n, …). Half precision is returned as float32.
        inputs: The inputs of the file: names, numpy dtypes, shapes of which axis 0 is dynamic.
        path: Where to write, in a folder without such a file of weights; after an error nothing is there.
        opset: The ONNX operator set.
        model_name: The model's name, for messages.

    Returns:
        The output, called ``"output"`` (``"output_1"``, … if an input is called so): its dtype and shape.

    Raises:
        PluginError: jax2onnx is missing, or cannot be imported.
        ExportError: jax2onnx gave no usable file; it says why.
        FoOnnxError: One that `function` raises itself, for example an `OutputError`.
    """
    # JAX's inputs have 32 bits, the file's what the data have.
    traced = [_narrow_spec(i) for i in inputs]
    name = unused_name(RAW_OUTPUT, [i.name for i in inputs])
    with open_jax2onnx() as jax2onnx:
        try:
            # One symbol for the batch axis of all inputs.
            shapes = jax.export.symbolic_args_specs(abstract_inputs(traced, 1), "(batch, ...)")
            proto = jax2onnx.to_onnx(
                in_float32(function), shapes, opset=opset, input_names=[i.name for i in traced],
                output_names=[name], enable_double_precision=False,
            )  # fmt: skip
            _require_usable(proto, traced, opset)
            narrow_pools(proto.graph)
            # The model is traced once more only if it looks something up.
            if holds_lookups(proto.graph) and clamps_indices(jax.make_jaxpr(in_float32(function))(*shapes).jaxpr):
                clamp_indices(proto.graph)
            _widen_inputs(proto.graph, inputs, traced)
            _save(proto, path)
        except Exception as err:
            if isinstance(err, FoOnnxError) and not isinstance(err, ExportError):
                # The model itself is at fault.
                raise
            raise ExportError(
                f"jax2onnx {version('jax2onnx')} with jax {version('jax')} cannot convert {model_name}: "
                f"{first_line(root_cause(err))}. It can be run natively: runner='native' or 'auto'."
            ) from err
    return tensor_spec(proto.graph.output[0])


def _narrow_spec(spec: TensorSpec) -> TensorSpec:
    """Return an input as it is traced: with 32 bits instead of 64, and then with a name of its own in the graph."""
    dtype = _NARROW.get(spec.dtype)
    return spec if dtype is None else TensorSpec(f"{spec.name}/{dtype}", dtype, spec.shape)


def _widen_inputs(graph: onnx.GraphProto, inputs: Sequence[TensorSpec], traced: Sequence[TensorSpec]) -> None:
    """Cast inputs of 64 bits to the ones that were traced."""
    for value, wide, narrow in zip(graph.input, inputs, traced, strict=True):
        if wide.dtype == narrow.dtype:
            continue
        value.name = wide.name
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(wide.dtype))
        narrow_type = helper.np_dtype_to_tensor_dtype(np.dtype(narrow.dtype))
        graph.node.insert(0, helper.make_node("Cast", [wide.name], [narrow.name], to=narrow_type))


def _require_usable(proto: onnx.ModelProto, inputs: Sequence[TensorSpec], opset: int) -> None:
    """Raise an `ExportError` for a model that is not as it was asked for, or that computes something else."""
    # Operators that draw numbers of their own, or that no runtime has.
    random = sorted({n.op_type for graph in all_graphs(proto.graph) for n in graph.node} & _RANDOM)
    if random:
        raise ExportError(f"{' and '.join(random)} would give other numbers than jax.random, and new ones in each run")
    unknown = unknown_operators(proto)
    if unknown:
        raise ExportError(f"ONNX has no operator for {', '.join(unknown)}")
    # The operator set, inputs and outputs that were asked for.
    written = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise ExportError(f"opset={opset} was asked for and {written} was written")
    written_inputs = [tensor_spec(i) for i in proto.graph.input]
    if [(i.name, i.dtype, i.rank) for i in written_inputs] != [(i.name, i.dtype, i.rank) for i in inputs]:
        raise ExportError(
            f"the inputs became {', '.join(map(str, written_inputs))} instead of {', '.join(map(str, inputs))}"
        )
    outputs = [tensor_spec(o) for o in proto.graph.output]
    if len(outputs) != 1 or outputs[0].rank == 0 or outputs[0].shape[0] is not None:
        raise ExportError(
            f"it returns {' and '.join(str(o.shape) for o in outputs)} for every batch size, and one array (n, classes) "
            "was expected; a function of one sample has to be mapped over the batch with jax.vmap"
        )


def _save(proto: onnx.ModelProto, path: Path) -> None:
    """Check a model, types and shapes included, and write it; a large one can be checked only as a file."""
    external = sum(len(t.raw_data) for t in proto.graph.initializer) > EXTERNAL_DATA_BYTES
    if not external:
        onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path, save_as_external_data=external, location=f"{path.name}.data")
    if external:
        onnx.checker.check_model(path, full_check=True)
