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
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fo_onnx.errors import ExportError, FoOnnxError, PluginError
from fo_onnx.operators import unknown_operators
from fo_onnx.spec import TensorSpec

from .pooling import narrow_pools
from .restoring import jax2onnx_quiet, restoring_jax, tracing_apart

if TYPE_CHECKING:
    import onnx

Function = Callable[..., Any]

OUTPUT = "output"
EXTERNAL_DATA_BYTES = 1_800_000_000
"""From this size of weights on they go into a file beside the model. Protobuf serialises at most 2 GiB."""
INSTALL = "pip install 'fo-onnx[jax2onnx]'"

_FIRST_WITHOUT_GRAPHS = (0, 7, 2)
_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
"""What JAX makes of 64 bits where they are disabled."""
_MESSAGE_CHARACTERS = 240


def route(version: str | None = None) -> Literal["jax2tf", "jax2onnx"]:
    """The way from JAX to ONNX that a version of jax leaves open.

    Args:
        version: A version of jax, for example ``"0.7.1"`` or ``"0.8.0.dev20251001"``; the installed one by default. Of
            development versions and candidates the release they lead to counts.

    Raises:
        PluginError: `version` does not begin with numbers.
    """
    if version is None:
        import jax

        version = jax.__version__
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if numbers is None:
        raise PluginError(
            f"the version of jax reads {version!r}, from which the way to ONNX cannot be told; a version like 0.7.1 was "
            "expected. Install a released jax, or run the model natively (engine='native')."
        )
    release = tuple(int(n) for n in numbers[0].split("."))
    return "jax2tf" if release < _FIRST_WITHOUT_GRAPHS else "jax2onnx"


def write_onnx(function: Function, inputs: Sequence[TensorSpec], path: Path, *, opset: int, who: str) -> TensorSpec:
    """Writes a JAX function to `path` as ONNX, with a dynamic batch axis and one output.

    The function is traced with 64-bit types disabled, and functions of JAX, flax and equinox are as before when this
    returns or raises. Weights go to a file beside `path`, called like it with ``.data`` added, where they exceed
    `EXTERNAL_DATA_BYTES`.

    Args:
        function: Takes arrays in the order of `inputs` and returns one array (n, …). Half precision is returned as float32.
        inputs: The inputs of the file: names, numpy dtypes, shapes with None for what is dynamic; axis 0 always is.
            Other dynamic axes of the same number are taken to have the same length in all inputs.
        path: Where to write; what is there is replaced, and nothing is left there after an error.
        opset: The ONNX operator set.
        who: The model's name, for messages.

    Returns:
        The output, called ``"output"`` (``"output_1"``, … where an input is called so): its dtype and shape.

    Raises:
        PluginError: jax2onnx is not there, or cannot be imported.
        ExportError: Neither way gave a usable file; it says why, for both.
        FoOnnxError: What `function` raises of these, for example an `OutputError`.
    """
    _require_installed()
    traced = [_narrow(i) for i in inputs]
    name = _output_name(inputs)
    reasons: dict[str, str] = {}
    with restoring_jax(), jax2onnx_quiet():
        _require_importable()
        for way, converted in (("plainly", _plain), ("from a jaxpr", _from_jaxpr)):
            try:
                proto = converted(_float32_out(function), traced, name, opset)
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
                return _spec(proto.graph.output[0])
    raise ExportError(
        f"jax2onnx {_version('jax2onnx')} with jax {_version('jax')} cannot convert {who}{_joined(reasons)}. "
        "It can be run natively: engine='native' or 'auto'."
    ) from failure


def _require_installed() -> None:
    try:
        _version("jax2onnx")
    except PackageNotFoundError as err:
        raise PluginError(
            f"jax {_version('jax')} is installed, whose models are converted to ONNX by jax2onnx, and jax2onnx is not: {INSTALL}"
        ) from err


def _require_importable() -> None:
    try:
        import jax2onnx  # noqa: F401
    except Exception as err:
        # It reads internals of jax, flax and equinox when it is imported; versions that do not fit fail in any way.
        raise PluginError(
            f"jax2onnx {_version('jax2onnx')} cannot be imported beside jax {_version('jax')}: {_first_cause(err)}. "
            f"Versions that fit each other are expected: {INSTALL}"
        ) from err


def _plain(function: Function, inputs: Sequence[TensorSpec], output: str, opset: int) -> onnx.ModelProto:
    """The conversion of the function as it is."""
    return _converted(function, _shapes(inputs), inputs, output, opset)


def _from_jaxpr(function: Function, inputs: Sequence[TensorSpec], output: str, opset: int) -> onnx.ModelProto:
    """The conversion of what JAX makes of the function, where nothing is replaced."""
    import jax
    from jax.extend.core import jaxpr_as_fun

    shapes = _shapes(inputs)
    with tracing_apart("jaxpr"):
        closed = jax.make_jaxpr(function)(*shapes)

    def traced(*arrays: Any) -> Any:
        (found,) = jaxpr_as_fun(closed)(*arrays)
        return found

    return _converted(traced, shapes, inputs, output, opset)


def _converted(
    function: Function, shapes: list[Any], inputs: Sequence[TensorSpec], output: str, opset: int
) -> onnx.ModelProto:
    import jax2onnx

    proto: onnx.ModelProto = jax2onnx.to_onnx(
        function,
        shapes,
        opset=opset,
        enable_double_precision=False,
        input_names=[i.name for i in inputs],
        output_names=[output],
    )
    return proto


def _float32_out(function: Function) -> Function:
    """`function`, returning float32 for floats of other precisions."""
    import jax.numpy as jnp

    def float32_out(*arrays: Any) -> Any:
        out = function(*arrays)
        floating = jnp.issubdtype(out.dtype, jnp.floating)
        return out.astype(jnp.float32) if floating and out.dtype != jnp.float32 else out

    return float32_out


def _shapes(inputs: Sequence[TensorSpec]) -> list[Any]:
    """The inputs as JAX traces them, with a symbol for each dynamic axis. Symbols of one scope can be compared."""
    import jax
    import jax.export

    scope = jax.export.SymbolicScope()
    symbols: dict[int, Any] = {}

    def size(axis: int, given: int | None) -> Any:
        if axis > 0 and given is not None:
            return given
        if axis not in symbols:
            (symbols[axis],) = jax.export.symbolic_shape("batch" if axis == 0 else f"axis{axis}", scope=scope)
        return symbols[axis]

    make: Any = jax.ShapeDtypeStruct
    return [make(tuple(size(*a) for a in enumerate(i.shape)), np.dtype(i.dtype)) for i in inputs]


def _narrow(spec: TensorSpec) -> TensorSpec:
    """An input as it is traced: what has 64 bits gets 32, and another name, since the graph's input keeps its own."""
    dtype = _NARROW.get(spec.dtype)
    return spec if dtype is None else TensorSpec(f"{spec.name}/{dtype}", dtype, spec.shape)


def _widen_inputs(graph: onnx.GraphProto, inputs: Sequence[TensorSpec], traced: Sequence[TensorSpec]) -> None:
    """Casts inputs of 64 bits to the ones that were traced."""
    from onnx import helper

    for value, asked, got in zip(graph.input, inputs, traced, strict=True):
        if asked.dtype == got.dtype:
            continue
        value.name = asked.name
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(asked.dtype))
        narrow = helper.np_dtype_to_tensor_dtype(np.dtype(got.dtype))
        graph.node.insert(0, helper.make_node("Cast", [asked.name], [got.name], to=narrow))


def _output_name(inputs: Sequence[TensorSpec]) -> str:
    taken = {i.name for i in inputs}
    names = itertools.chain([OUTPUT], (f"{OUTPUT}_{i}" for i in itertools.count(1)))
    return next(n for n in names if n not in taken)


def _require_usable(proto: onnx.ModelProto, inputs: Sequence[TensorSpec], opset: int) -> None:
    """Raises an `ExportError` for a model that is not as it was asked for, or that computes something else."""
    unknown = unknown_operators(proto)
    if unknown:
        raise ExportError(f"ONNX has no operator for {', '.join(unknown)}")
    random = sorted({n.op_type for n in _nodes(proto.graph.node) if n.op_type in _RANDOM})
    if random:
        # jax2onnx 0.17.1 writes them for jax.random, whose numbers follow from the key alone (plugins/jax/random).
        raise ExportError(f"{' and '.join(random)} would give other numbers than jax.random, and new ones in each run")
    written = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if written != opset:
        raise ExportError(f"opset={opset} was asked for and {written} was written")
    got = [_spec(i) for i in proto.graph.input]
    if [(i.name, i.dtype, i.rank) for i in got] != [(i.name, i.dtype, i.rank) for i in inputs]:
        raise ExportError(f"the inputs became {', '.join(map(str, got))} instead of {', '.join(map(str, inputs))}")
    fixed = [i.name for i in got if i.shape[0] is not None]
    if fixed:
        raise ExportError(f"the batch size of {', '.join(fixed)} became fixed")
    outputs = [_spec(o) for o in proto.graph.output]
    if len(outputs) != 1 or outputs[0].rank == 0 or outputs[0].shape[0] is not None:
        raise ExportError(
            f"it returns {' and '.join(str(o.shape) for o in outputs)} for every batch size, and one array (n, classes) "
            "was expected; a function of one sample has to be mapped over the batch with jax.vmap"
        )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    from onnx import helper

    tensor = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
    return TensorSpec(value.name, helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                yield from _nodes(graph.node)


def _save(proto: onnx.ModelProto, path: Path) -> None:
    """Has a model checked, types and shapes included, and writes it; a large one can be checked only as a file."""
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
    """What stopped a conversion, in one line."""
    while err.__cause__ is not None:
        err = err.__cause__
    lines = [line.strip() for line in str(err).splitlines() if line.strip()] or ["no message"]
    text = (" ".join(lines[:2]) if lines[0].endswith(":") else lines[0]).rstrip(".")
    if len(text) > _MESSAGE_CHARACTERS:
        text = f"{text[:_MESSAGE_CHARACTERS]}…"
    return text if isinstance(err, ExportError) else f"{type(err).__name__}: {text}"


def _joined(reasons: dict[str, str]) -> str:
    if len(set(reasons.values())) == 1:
        return f", {' or '.join(reasons)}: {next(iter(reasons.values()))}"
    return ". " + ". ".join(f"{way.capitalize()}: {reason}" for way, reason in reasons.items())
