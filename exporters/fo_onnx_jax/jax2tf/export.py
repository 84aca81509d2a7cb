"""JAX functions to ONNX by way of a TensorFlow graph: jax2tf's graph serialisation, then tf2onnx.

For jax before 0.7.2, the last whose ``jax2tf.convert`` makes a graph of TensorFlow's own operators
(``native_serialization=False``). Newer ones wrap StableHLO into one ``XlaCallModule``, which nothing turns into ONNX.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError, PluginError, first_line

from ..flat_function import abstract_inputs
from ..jaxpr.half_precision import in_float32
from ..jaxpr.loops import unroll_short_scans
from .large_weights import split_large_weights
from .patches import patch_jax2tf

_SHAPE = "(b, ...)"
"""The shape of an input as jax2tf reads it: a batch of any size, the same in all inputs."""


def write_onnx(
    function: Callable[..., Any], inputs: Sequence[TensorSpec], path: Path, *, opset: int, model_name: str
) -> TensorSpec:
    """Write a JAX function to `path` as ONNX, with a dynamic batch axis and one output.

    Args:
        function: Takes arrays in the order of `inputs` and returns one.
        inputs: The inputs of the file: names, numpy dtypes, shapes of which axis 0 is dynamic.
        path: Where to write; what is there is replaced.
        opset: The ONNX operator set.
        model_name: The model's name, for messages.

    Returns:
        The output, called ``"output"``: its dtype and shape.

    Raises:
        ExportError: The function cannot be traced with a batch axis of any size, or an operator cannot be converted.
        PluginError: TensorFlow or tf2onnx is missing.
    """
    tensorflow_export = _import_tensorflow_export()
    over_tensors = _convert(function, inputs, model_name, tensorflow_export.EXTERNAL_DATA_BYTES)
    with patch_jax2tf():
        spec: TensorSpec = tensorflow_export.write_onnx(over_tensors, inputs, path, opset=opset, model_name=model_name)
    return spec


def _import_tensorflow_export() -> Any:
    tensorflow_is_new = "tensorflow" not in sys.modules
    try:
        from fo_onnx_tensorflow.quiet import quiet

        with quiet():
            import jax.experimental.jax2tf  # noqa: F401
            import tensorflow as tf
            from fo_onnx_tensorflow import export

            if tensorflow_is_new:
                # It is here for a graph only, and left alone it takes all of a GPU's memory.
                for gpu in tf.config.list_physical_devices("GPU"):
                    tf.config.experimental.set_memory_growth(gpu, True)
    except ImportError as err:
        raise PluginError(
            f"exporting JAX functions takes TensorFlow and tf2onnx, and {err.name or err} is missing; "
            "pip install 'fo-onnx[jax]'."
        ) from err
    return export


def _convert(
    function: Callable[..., Any], inputs: Sequence[TensorSpec], model_name: str, largest_graph_bytes: int
) -> Callable[..., Any]:
    """Return the function over TensorFlow tensors; its JAX code runs when that is called."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    shapes = [_SHAPE] * len(inputs)

    def over_tensors(*tensors: Any) -> Any:
        # In here rather than outside: jax2tf warns that it is deprecated, and warnings are silenced only while TensorFlow traces.
        try:
            # Weights that would burst the graph become arguments from outside of it.
            arguments = jax.export.symbolic_args_specs(abstract_inputs(inputs, 1), shapes)
            over_weights, weights = split_large_weights(function, arguments, largest_graph_bytes)
            with tf.init_scope():
                large_weights = [tf.constant(array) for array in weights]
            converted = jax2tf.convert(
                unroll_short_scans(in_float32(over_weights)),
                polymorphic_shapes=[None, *shapes],
                # TensorFlow's registry of gradients never lets one go, nor the weights that it computes with.
                with_gradient=False,
                native_serialization=False,
                enable_xla=False,
            )
            return converted(large_weights, *tensors)
        except FoOnnxError:
            raise
        except Exception as err:
            raise ExportError(f"jax2tf cannot convert {model_name}: {_explain(err)}.") from err

    return over_tensors


def _explain(err: Exception) -> str:
    """Return what stopped a conversion, in plain words if the model's code asks for the number of rows."""
    from jax.core import InconclusiveDimensionOperation

    text = first_line(err)
    # JAX raises its own error for code that looks at a symbolic size, and numpy and Python raise theirs.
    if isinstance(err, InconclusiveDimensionOperation) or "_DimExpr" in text or "symbolic" in text.lower():
        return (
            f"its code asks how many rows there are ({text}), and the ONNX file is for batches of any size. Sizes of the "
            "batch may be used in shapes, as in jnp.zeros((x.shape[0], 3)), but not in an if, a range, int() or numpy; or "
            "run it natively"
        )
    return text
