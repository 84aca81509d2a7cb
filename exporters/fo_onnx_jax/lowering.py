"""JAX functions to ONNX by way of a TensorFlow graph: jax2tf's graph serialisation, then tf2onnx.

For jax before 0.7.2, the last whose ``jax2tf.convert`` makes a graph of TensorFlow's own operators
(``native_serialization=False``). Newer ones wrap StableHLO into one ``XlaCallModule``, which nothing turns into ONNX.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from fo_onnx.errors import ExportError, FoOnnxError, PluginError
from fo_onnx.spec import TensorSpec

BATCH = "b"


def write_onnx(
    function: Callable[..., Any], inputs: Sequence[TensorSpec], path: Path, *, opset: int, who: str
) -> TensorSpec:
    """Writes a JAX function to `path` as ONNX, with a dynamic batch axis and one output.

    Args:
        function: Takes arrays in the order of `inputs` and returns one.
        inputs: The inputs of the file: names, numpy dtypes, shapes with None for what is dynamic; axis 0 always is.
        path: Where to write; what is there is replaced.
        opset: The ONNX operator set.
        who: The model's name, for messages.

    Returns:
        The output, called ``"output"``: its dtype and shape.

    Raises:
        ExportError: The function cannot be traced with a batch axis of any size, or an operator cannot be converted.
        PluginError: TensorFlow or tf2onnx is missing.
    """
    conversion = _conversion()
    from .patches import jax2tf_patched

    with jax2tf_patched():
        spec: TensorSpec = conversion.write_onnx(
            _as_tensorflow(function, inputs, who), inputs, path, opset=opset, who=who
        )
    return spec


def _conversion() -> Any:
    first = "tensorflow" not in sys.modules
    try:
        from fo_onnx_tfgraph.quiet import quiet

        with quiet():
            import jax.experimental.jax2tf  # noqa: F401
            from fo_onnx_tfgraph import conversion

            if first:
                _spare_gpus()
    except ImportError as err:
        raise PluginError(
            f"exporting JAX functions takes TensorFlow and tf2onnx, and {err.name or err} is missing; "
            "pip install 'fo-onnx[jax]'."
        ) from err
    return conversion


def _spare_gpus() -> None:
    """Lets TensorFlow, which is here for a graph only, take a GPU's memory as it needs it: left alone it takes all of it."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _as_tensorflow(function: Callable[..., Any], inputs: Sequence[TensorSpec], who: str) -> Callable[..., Any]:
    """The function over TensorFlow tensors; its JAX code runs when that is called."""
    from .large_weights import large_weights, with_weights_given

    shapes = [_symbolic(spec, i) for i, spec in enumerate(inputs)]

    def traced(*tensors: Any) -> Any:
        # In here rather than outside: jax2tf warns that it is deprecated, and warnings are silenced only while TensorFlow traces.
        try:
            weights = large_weights(function, _arguments(inputs, shapes), _largest_graph_bytes())
            if not weights:
                return _convert(_prepared(function), shapes)(*tensors)
            given = _prepared(with_weights_given(function, list(weights)))
            return _convert(given, [None, *shapes])(_outside_of_the_graph(weights.values()), *tensors)
        except FoOnnxError:
            raise
        except Exception as err:
            raise ExportError(f"jax2tf cannot convert {who}: {_reason(err)}.") from err

    return traced


def _convert(function: Callable[..., Any], shapes: Sequence[str | None]) -> Callable[..., Any]:
    from jax.experimental import jax2tf

    converted: Callable[..., Any] = jax2tf.convert(
        function,
        polymorphic_shapes=shapes,
        # Without it jax2tf puts PreventGradient nodes, which ONNX has no operator for.
        with_gradient=True,
        native_serialization=False,
        enable_xla=False,
    )
    return converted


def _largest_graph_bytes() -> int:
    from fo_onnx_tfgraph import conversion

    return conversion.EXTERNAL_DATA_BYTES


def _outside_of_the_graph(arrays: Iterable[Any]) -> list[Any]:
    import tensorflow as tf

    with tf.init_scope():
        return [tf.constant(array) for array in arrays]


def _arguments(inputs: Sequence[TensorSpec], shapes: Sequence[str]) -> Any:
    """Abstract arrays with symbolic sizes."""
    import jax
    from jax import export

    placeholders = [
        jax.ShapeDtypeStruct(  # type: ignore[no-untyped-call]
            tuple(d or 1 for d in i.shape), jax.dtypes.canonicalize_dtype(i.dtype)
        )
        for i in inputs
    ]
    return export.symbolic_args_specs(placeholders, list(shapes))


def _prepared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in what ONNX Runtime calculates with, and its recurrences as ONNX's operators."""
    from .precision import in_float32, uses_half
    from .recurrences import recurrences_fused

    def prepared(*arrays: Any) -> Any:
        lifted = in_float32(function) if uses_half(function, *arrays) else function
        return recurrences_fused(lifted)(*arrays)

    return prepared


def _symbolic(spec: TensorSpec, index: int) -> str:
    """A shape as jax2tf writes it; the batch axes of all inputs share one symbol."""
    axes = [BATCH, *(str(d) if d is not None else f"d{index}_{n}" for n, d in enumerate(spec.shape[1:], 1))]
    return f"({', '.join(axes)})"


def _reason(err: Exception) -> str:
    from jax.core import InconclusiveDimensionOperation

    lines = [line.strip() for line in str(err).splitlines() if line.strip()] or ["no message"]
    text = f"{type(err).__name__}: {lines[0].rstrip('.')}"
    # JAX raises its own error where it looks at a symbolic size, and numpy and Python raise theirs.
    if isinstance(err, InconclusiveDimensionOperation) or "_DimExpr" in lines[0] or "symbolic" in lines[0].lower():
        return (
            f"its code asks how many rows there are ({text}), and the ONNX file is for batches of any size. Sizes of the "
            "batch may be used in shapes, as in jnp.zeros((x.shape[0], 3)), but not in an if, a range, int() or numpy; or "
            "run it natively"
        )
    return text
