"""A JAX model to ONNX, by the route that the installed version of jax leaves open."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Literal

import jax

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec
from fo_onnx.errors import ExportError, FoOnnxError, first_line

from .devices import devices_of, tpu_reason
from .flat_function import attempt_trace, flatten, input_specs, remove_jax_notes
from .jaxpr.loops import find_loops
from .references import find_weights

_FIRST_WITHOUT_GRAPHS = (0, 7, 2)


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Write `model` to `path`; see `fo_onnx.contracts.Exporter.export`.

    The batch axis is dynamic and no other: JAX functions are traced for the lengths of the rows that they get, and
    many compute with these (masks, positions, reshapes), which fails for an axis that is open.
    """
    function = flatten(model, example, options, output)
    inputs = input_specs(function, example)
    try:
        if choose_route() == "jax2tf":
            from .jax2tf.export import write_onnx
        else:
            from .jax2onnx.export import write_onnx

        raw = write_onnx(function, inputs, path, opset=options.opset, model_name=function.model_name)
    except FoOnnxError as err:
        remove_jax_notes(err)
        raise
    except Exception as err:
        # Whatever a converter raises.
        cause = first_line(err)
        raise ExportError(f"converting {function.model_name} to ONNX failed: {cause}.") from err
    return ModelSpec(inputs=tuple(inputs), output=raw, name=function.model_name, framework="jax")


def prefer_native(model: Any, example: Inputs) -> str | None:
    """Return why `model` is better run in JAX; see `fo_onnx.contracts.PrefersNative.prefer_native`."""
    reason = tpu_reason(devices_of(find_weights(model)))
    if reason is not None:
        return reason
    function = flatten(model, example, ModelOptions(), OutputOptions())
    # Of all outputs: which one holds the class scores is not known here, and the loops are the same.
    find = functools.partial(find_loops, function.all_outputs, unrolls_short_scans=choose_route() == "jax2tf")
    return "; ".join(attempt_trace(find, function, example) or ()) or None


def choose_route() -> Literal["jax2tf", "jax2onnx"]:
    """Return the way from JAX to ONNX that the installed version of jax leaves open."""
    return "jax2tf" if jax.__version_info__ < _FIRST_WITHOUT_GRAPHS else "jax2onnx"
