"""A JAX model to ONNX, by the route that the installed version of jax leaves open."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from fo_onnx.errors import ExportError, FoOnnxError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Inputs
from fo_onnx.spec import ModelSpec

from . import newer, precision
from .devices import homes, tpu_reason
from .functions import first_line, flat, input_specs, shapes, weights, without_notes
from .recurrences import unfused_loops

log = logging.getLogger("fo_onnx_jax")


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Writes `model` to `path`; see `fo_onnx.protocols.Exporter.export`.

    The batch axis is dynamic and no other: JAX functions are traced for the lengths of the rows that they are given, and
    many compute with these (masks, positions, reshapes), which fails for an axis that is open.
    """
    function = flat(model, example, options, output)
    inputs = input_specs(function, example)
    try:
        if newer.route() == "jax2tf":
            from .lowering import write_onnx

            raw = write_onnx(function, inputs, path, opset=options.opset, who=function.who)
        else:
            half = precision.uses_half(function, *shapes(inputs, 2))
            lifted = precision.in_float32(function) if half else function
            raw = newer.write_onnx(lifted, inputs, path, opset=options.opset, who=function.who)
    except FoOnnxError as err:
        without_notes(err)
        raise
    except Exception as err:
        raise ExportError(
            f"converting {function.who} to ONNX failed: {type(err).__name__}: {first_line(err)}."
        ) from err
    return ModelSpec(inputs=tuple(inputs), output=raw, name=function.who, framework="jax")


def native_only(model: Any, example: Inputs) -> str | None:
    """Why `model` is better run in JAX; see `fo_onnx.protocols.Exporter.native_only`."""
    reason = tpu_reason(homes(weights(model)))
    if reason is not None:
        return reason
    function = flat(model, example, ModelOptions(), OutputOptions())
    try:
        # Of all outputs: which one is meant is not told here, and the loops are the same.
        fused = newer.route() == "jax2tf"
        loops = unfused_loops(function.outputs, *shapes(input_specs(function, example), 2), fused=fused)
    except Exception as err:
        # Whatever keeps it from being traced keeps it from being exported as well, which then says so.
        log.debug("the loops of %s cannot be told: %s", function.who, err)
        return None
    return "; ".join(loops) or None
