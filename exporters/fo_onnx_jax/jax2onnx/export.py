"""JAX functions to ONNX by jax2onnx: the route for jax >= 0.7.2, whose jax2tf makes no plain TensorFlow graphs any more.

From then on ``jax2tf.convert`` ignores ``native_serialization=False`` (``jax/experimental/jax2tf/jax2tf.py``), and tf2onnx cannot
convert the operator XlaCallModule in which native serialization results. jax2onnx goes from a jaxpr to ONNX by itself, in one of
two ways:

- plainly: it traces the function with many functions of JAX, flax and equinox replaced by operators of its own (a softmax stays
  a Softmax). The replacements do not take every form of call: flax's pools, for one, take no positional arguments.
- from a jaxpr: the function is traced before, with nothing replaced, and jax2onnx gets JAX's primitives alone.

Some programs go one way only, so both are tried, and each file is checked before it is taken.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import numpy as np
from jax.extend.core import jaxpr_as_fun

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError, PluginError
from fo_onnx.plugin_kit.graph_checks import tensor_spec, unknown_operators

from ..flat_function import abstract_inputs
from .pools import narrow_pools
from .restore_jax import restore_jax, silence_jax2onnx, trace_apart

if TYPE_CHECKING:
    import onnx

Function = Callable[..., Any]

OUTPUT = "output"
EXTERNAL_DATA_BYTES = 1_800_000_000
"""From this size of weights on they go into a file beside the model. Protobuf serialises at most 2 GiB."""
INSTALL = "pip install 'fo-onnx[jax2onnx]'"

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""Dtypes of 64 bits, and what JAX makes of them if they are disabled."""
_MESSAGE_CHARACTERS = 240


def write_onnx(
    function: Function, inputs: Sequence[TensorSpec], path: Path, *, opset: int, model_name: str
) -> TensorSpec:
    """Write a JAX function to `path` as ONNX, with a dynamic batch axis and one output.

    The function is traced with 64-bit types disabled, and functions of JAX, flax and equinox are as before when this
    returns or raises. Weights above `EXTERNAL_DATA_BYTES` go to a file next to `path`, called like it with ``.data``
    added.

    Args:
        function: Takes arrays in the order of `inputs` and returns one array (n, …). Half precision is returned as float32.
        inputs: The inputs of the file: names, numpy dtypes, shapes of which axis 0 is dynamic.
        path: Where to write; what is there is replaced, and nothing is left there after an error.
        opset: The ONNX operator set.
        model_name: The model's name, for messages.

    Returns:
        The output, called ``"output"`` (``"output_1"``, … if an input is called so): its dtype and shape.

    Raises:
        PluginError: jax2onnx is missing, or cannot be imported.
        ExportError: Neither way gave a usable file; it says why, for both.
        FoOnnxError: One that `function` raises itself, for example an `OutputError`.
    """
    _require_installed()
    # JAX's inputs have 32 bits, the file's what the data have.
    traced = [_narrow_spec(i) for i in inputs]
    name = _choose_output_name(inputs)
    reasons: dict[str, str] = {}
    with restore_jax(), silence_jax2onnx():
        jax2onnx = _import_jax2onnx()
        for way in ("plainly", "from a jaxpr"):
            try:
                # One symbol for the batch axis of all inputs.
                shapes = jax.export.symbolic_args_specs(abstract_inputs(traced, 1), "(batch, ...)")
                ready = _return_float32(function)
                proto = jax2onnx.to_onnx(
                    ready if way == "plainly" else _retrace(ready, shapes), shapes, opset=opset, output_names=[name],
                    input_names=[i.name for i in traced], enable_double_precision=False,
                )  # fmt: skip
                _require_usable(proto, traced, opset)
                narrow_pools(proto.graph)
                _widen_inputs(proto.graph, inputs, traced)
                _save(proto, path)
            except Exception as err:
                if isinstance(err, FoOnnxError) and not isinstance(err, ExportError):
                    # The model itself is at fault, whichever way it goes.
                    raise
                # Whatever the converter raises is a reason to try the other way, and is reported.
                reasons[way] = _first_cause(err)
                failure = err
            else:
                return tensor_spec(proto.graph.output[0])
    raise ExportError(
        f"jax2onnx {_version('jax2onnx')} with jax {_version('jax')} cannot convert {model_name}{_join_reasons(reasons)}. "
        "It can be run natively: runner='native' or 'auto'."
    ) from failure


def _require_installed() -> None:
    try:
        _version("jax2onnx")
    except PackageNotFoundError as err:
        raise PluginError(
            f"jax {_version('jax')} is installed, whose models are converted to ONNX by jax2onnx, and jax2onnx is not: {INSTALL}"
        ) from err


def _import_jax2onnx() -> Any:
    try:
        import jax2onnx
    except Exception as err:
        # It reads internals of jax, flax and equinox when it is imported; versions that do not fit fail in any way.
        raise PluginError(
            f"jax2onnx {_version('jax2onnx')} cannot be imported beside jax {_version('jax')}: {_first_cause(err)}. "
            f"Versions that fit each other are expected: {INSTALL}"
        ) from err
    return jax2onnx


def _retrace(function: Function, shapes: Any) -> Function:
    """Return what JAX makes of the function with nothing replaced: a function that binds its primitives alone."""
    with trace_apart("jaxpr"):
        closed = jax.make_jaxpr(function)(*shapes)

    def call(*arrays: Any) -> Any:
        (output,) = jaxpr_as_fun(closed)(*arrays)
        return output

    return call


def _return_float32(function: Function) -> Function:
    """Return `function` with float32 for floats of other precisions in its output."""

    def float32_out(*arrays: Any) -> Any:
        out = function(*arrays)
        return out.astype(np.float32) if jax.numpy.issubdtype(out.dtype, jax.numpy.floating) else out

    return float32_out


def _narrow_spec(spec: TensorSpec) -> TensorSpec:
    """Return an input as it is traced: with 32 bits instead of 64, and then with a name of its own in the graph."""
    dtype = _NARROW.get(spec.dtype)
    return spec if dtype is None else TensorSpec(f"{spec.name}/{dtype}", dtype, spec.shape)


def _widen_inputs(graph: onnx.GraphProto, inputs: Sequence[TensorSpec], traced: Sequence[TensorSpec]) -> None:
    """Cast inputs of 64 bits to the ones that were traced."""
    from onnx import helper

    for value, wide, narrow in zip(graph.input, inputs, traced, strict=True):
        if wide.dtype == narrow.dtype:
            continue
        value.name = wide.name
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(wide.dtype))
        narrow_type = helper.np_dtype_to_tensor_dtype(np.dtype(narrow.dtype))
        graph.node.insert(0, helper.make_node("Cast", [wide.name], [narrow.name], to=narrow_type))


def _choose_output_name(inputs: Sequence[TensorSpec]) -> str:
    taken = {i.name for i in inputs}
    names = itertools.chain([OUTPUT], (f"{OUTPUT}_{i}" for i in itertools.count(1)))
    return next(n for n in names if n not in taken)


def _require_usable(proto: onnx.ModelProto, inputs: Sequence[TensorSpec], opset: int) -> None:
    """Raise an `ExportError` for a model that is not as it was asked for, or that computes something else."""
    # Operators that no runtime has, or that draw numbers of their own.
    unknown = unknown_operators(proto)
    if unknown:
        raise ExportError(f"ONNX has no operator for {', '.join(unknown)}")
    random = sorted({n.op_type for n in _all_nodes(proto.graph.node) if n.op_type in _RANDOM})
    if random:
        # jax2onnx 0.17.1 writes them for jax.random, whose numbers follow from the key alone (plugins/jax/random).
        raise ExportError(f"{' and '.join(random)} would give other numbers than jax.random, and new ones in each run")
    # The operator set, inputs and outputs that were asked for.
    written = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise ExportError(f"opset={opset} was asked for and {written} was written")
    written_inputs = [tensor_spec(i) for i in proto.graph.input]
    if [(i.name, i.dtype, i.rank) for i in written_inputs] != [(i.name, i.dtype, i.rank) for i in inputs]:
        raise ExportError(
            f"the inputs became {', '.join(map(str, written_inputs))} instead of {', '.join(map(str, inputs))}"
        )
    fixed = [i.name for i in written_inputs if i.shape[0] is not None]
    if fixed:
        raise ExportError(f"the batch size of {', '.join(fixed)} became fixed")
    outputs = [tensor_spec(o) for o in proto.graph.output]
    if len(outputs) != 1 or outputs[0].rank == 0 or outputs[0].shape[0] is not None:
        raise ExportError(
            f"it returns {' and '.join(str(o.shape) for o in outputs)} for every batch size, and one array (n, classes) "
            "was expected; a function of one sample has to be mapped over the batch with jax.vmap"
        )


def _all_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _all_nodes(graph.node)


def _save(proto: onnx.ModelProto, path: Path) -> None:
    """Check a model, types and shapes included, and write it; a large one can be checked only as a file."""
    import onnx

    external = sum(len(t.raw_data) for t in proto.graph.initializer) > EXTERNAL_DATA_BYTES
    if not external:
        onnx.checker.check_model(proto, full_check=True)
    # A name that is free, since onnx appends to what is there.
    names = (f"{path.name}{'' if i == 0 else f'.{i}'}.data" for i in itertools.count())
    weights = next(name for name in names if not path.with_name(name).exists())
    onnx.save_model(proto, path, save_as_external_data=external, location=weights)
    if external:
        onnx.checker.check_model(path, full_check=True)


def _first_cause(err: BaseException) -> str:
    """Return what stopped a conversion, in one line."""
    while err.__cause__ is not None:
        err = err.__cause__
    lines = [line.strip() for line in str(err).splitlines() if line.strip()] or ["no message"]
    text = (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).rstrip(".")
    if len(text) > _MESSAGE_CHARACTERS:
        text = f"{text[:_MESSAGE_CHARACTERS]}…"
    return text if isinstance(err, ExportError) else f"{type(err).__name__}: {text}"


def _join_reasons(reasons: dict[str, str]) -> str:
    if len(set(reasons.values())) == 1:
        return f", {' or '.join(reasons)}: {next(iter(reasons.values()))}"
    return ". " + ". ".join(f"{way.capitalize()}: {reason}" for way, reason in reasons.items())
