"""A JAX model to ONNX, by the route that the installed version of jax leaves open."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Literal

import jax

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec
from fo_onnx.errors import ExportError, FoOnnxError, PluginError, first_line

from .devices import devices_of, tpu_reason
from .flat_function import abstract_inputs, flatten, input_specs, remove_jax_notes
from .jaxpr import half_precision
from .jaxpr.loops import find_loops
from .references import find_weights

log = logging.getLogger("fo_onnx_jax")
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

            raw = write_onnx(function, inputs, path, opset=options.opset, model_name=function.model_name)
        else:
            from .jax2onnx.export import write_onnx

            half = half_precision.uses_half(function, *abstract_inputs(inputs, 2))
            lifted = half_precision.in_float32(function) if half else function
            raw = write_onnx(lifted, inputs, path, opset=options.opset, model_name=function.model_name)
    except FoOnnxError as err:
        remove_jax_notes(err)
        raise
    except Exception as err:
        # Whatever a converter raises.
        cause = first_line(err).rstrip(".")
        raise ExportError(f"converting {function.model_name} to ONNX failed: {cause}.") from err
    return ModelSpec(inputs=tuple(inputs), output=raw, name=function.model_name, framework="jax")


def prefer_native(model: Any, example: Inputs) -> str | None:
    """Return why `model` is better run in JAX; see `fo_onnx.contracts.PrefersNative.prefer_native`."""
    reason = tpu_reason(devices_of(find_weights(model)))
    if reason is not None:
        return reason
    function = flatten(model, example, ModelOptions(), OutputOptions())
    try:
        # Of all outputs: which one holds the class scores is not known here, and the loops are the same.
        loops = find_loops(
            function.all_outputs,
            *abstract_inputs(input_specs(function, example), 2),
            unrolls_short_scans=choose_route() == "jax2tf",
        )
    except Exception as err:
        # Whatever keeps it from being traced keeps it from being exported as well, which then says so.
        log.debug("the loops of %s cannot be found: %s", function.model_name, err)
        return None
    return "; ".join(loops) or None


def choose_route(version: str | None = None) -> Literal["jax2tf", "jax2onnx"]:
    """Return the way from JAX to ONNX that a version of jax leaves open.

    Args:
        version: A version of jax, for example ``"0.7.1"`` or ``"0.8.0.dev20251001"``; the installed one by default. Of
            development versions and candidates the release they lead to counts.

    Raises:
        PluginError: `version` does not begin with numbers.
    """
    version = jax.__version__ if version is None else version
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    if numbers is None:
        raise PluginError(
            f"the version of jax reads {version!r}, which does not say which way to ONNX it leaves; a version like 0.7.1 was "
            "expected. Install a released jax, or run the model natively (runner='native')."
        )
    release = tuple(int(n) for n in numbers[0].split("."))
    return "jax2tf" if release < _FIRST_WITHOUT_GRAPHS else "jax2onnx"
