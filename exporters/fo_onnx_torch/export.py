"""torch to ONNX, by ``torch.onnx.export`` on a `FlatModule`.

That makes one form of every call (dicts, keywords, dataclasses, ModelOutputs), so that the graph has named flat inputs and a
single output.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError
from fo_onnx.plugin_kit.quiet import quiet

from .modules import FlatModule, dtype_name, evaluation_mode, float32_copy, float_dtype, is_half, weight_bytes

log = logging.getLogger("fo_onnx_torch")
RAW_OUTPUT = "output"
EXTERNAL_DATA_BYTES = 2_000_000_000
"""Protobuf ends at 2 GiB; from here on the weights go into a file of their own."""
SCRIPT_OPSET = 18
"""The newest operator set of the older exporter."""

_TORCH = str(Path(torch.__file__).parent)
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")
_QUOTED = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)')


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Write `model` to `path`; see `fo_onnx.contracts.Exporter.export`."""
    module = FlatModule(model, example, options, output)
    if is_half(module) or float_dtype(module) == torch.float64:
        # ONNX Runtime has no bfloat16, and lacks many operators in float64, on the CPU.
        module = float32_copy(module)
    tensors = module.to_tensors(example)
    write = _export_script if isinstance(module.model, torch.jit.ScriptModule) else _export_dynamo
    with evaluation_mode(module), quiet("torch"), torch.no_grad():
        try:
            free_lengths = write(module, tensors, path, options.opset)
        except FoOnnxError:
            raise
        except Exception as err:
            # The exporter's own errors derive from torch.onnx.OnnxExporterError, and what the model's code raises while it
            # is traced comes through as it is.
            raise ExportError(f"torch.onnx.export cannot convert {module.model_name}: {_root_cause(err)}") from err
        # The example again, since a model may have worked in place on the tensors.
        raw = module(*module.to_tensors(example))
    inputs = tuple(_input_spec(n, t, free_lengths) for n, t in zip(module.call.names, tensors, strict=True))
    raw_output = TensorSpec(RAW_OUTPUT, dtype_name(raw), (None, *raw.shape[1:]))
    return ModelSpec(inputs=inputs, output=raw_output, name=module.model_name, framework="torch")


# The two exporters of torch ---------------------------------------------------------------------------------------


def _export_dynamo(module: FlatModule, tensors: list[torch.Tensor], path: Path, opset: int) -> bool:
    """Write the file; return whether the lengths of token sequences are free in it."""

    def convert(axes: Callable[[torch.Tensor], dict[int, Any]]) -> Any:
        return torch.onnx.export(
            module,
            tuple(tensors),
            input_names=list(module.call.names),
            output_names=[RAW_OUTPUT],
            opset_version=opset,
            dynamic_shapes=(tuple(axes(t) for t in tensors),),
            dynamo=True,
            verbose=False,
        )

    # With free lengths of token sequences first; without them if the traced graph does not hold for others.
    program = convert(_dynamic_axes)
    free_lengths = any(map(_is_tokens, tensors))
    if free_lengths and not _holds_for_other_lengths(module, tensors, program.exported_program.module()):
        free_lengths = False
        program = convert(_batch_axis)
    _require_opset(program.model.opset_imports[""], opset)
    program.save(str(path), external_data=weight_bytes(module) > EXTERNAL_DATA_BYTES)
    return free_lengths


def _export_script(module: FlatModule, tensors: list[torch.Tensor], path: Path, opset: int) -> bool:
    """Write the file of a ScriptModule, which has no Python to trace: only the older exporter reads its graph."""
    _require_opset(min(opset, SCRIPT_OPSET), opset)
    args, kwargs = module.call.arguments(tensors)
    torch.onnx.export(
        module.model,
        (*args, kwargs) if kwargs else args,
        str(path),
        input_names=list(module.call.names),
        output_names=[RAW_OUTPUT],
        opset_version=opset,
        dynamic_axes={n: {0: "batch"} for n in (*module.call.names, RAW_OUTPUT)},
        dynamo=False,
    )
    return False


def _require_opset(written: int, requested: int) -> None:
    """Raise an `ExportError` if the exporter writes another operator set, which it does without a word."""
    if written != requested:
        raise ExportError(
            f"opset={requested} was asked for, and torch.onnx.export gives {written} instead; say opset={written}."
        )


def _holds_for_other_lengths(module: FlatModule, tensors: list[torch.Tensor], traced: torch.nn.Module) -> bool:
    """Return whether the traced graph is the model for token sequences of other lengths too.

    A loop of Python over the steps is traced as so many steps, and the length stays free all the same: longer sequences
    would be cut off without a word.
    """
    for change in (lambda n: n + 1, lambda n: (n + 1) // 2):
        others = [t[:, torch.arange(change(t.shape[1])) % t.shape[1]] if _is_tokens(t) else t for t in tensors]  # type: ignore[no-untyped-call]
        try:
            expected = module(*others)
        except Exception as err:
            # The model itself does not take this length, so that nothing wrong can come of it.
            log.debug("%s takes no other lengths: %s", module.model_name, err)
            continue
        try:
            raw = traced(*others)
        except Exception as err:
            log.debug("the traced graph takes no other lengths: %s", err)
            return False
        if raw.shape != expected.shape or not torch.allclose(raw, expected, rtol=1e-3, atol=1e-4):
            return False
    return True


# Inputs and their axes --------------------------------------------------------------------------------------------


def _batch_axis(tensor: torch.Tensor) -> dict[int, Any]:
    """Return the batch axis, which is dynamic, always."""
    return {0: torch.export.Dim.DYNAMIC}


def _dynamic_axes(tensor: torch.Tensor) -> dict[int, Any]:
    """Return the batch axis, and the length of token sequences if the model allows it."""
    return _batch_axis(tensor) | ({1: torch.export.Dim.AUTO} if _is_tokens(tensor) else {})


def _is_tokens(tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_floating_point()


def _input_spec(name: str, tensor: torch.Tensor, free_lengths: bool) -> TensorSpec:
    free = (_dynamic_axes if free_lengths else _batch_axis)(tensor)
    return TensorSpec(name, dtype_name(tensor), tuple(None if i in free else d for i, d in enumerate(tensor.shape)))


# What an error says -----------------------------------------------------------------------------------------------


def _root_cause(err: BaseException) -> str:
    """Return what stopped the exporter, with the operator or the line of the model's code that did."""
    first = err
    while err.__cause__ is not None:
        err = err.__cause__
    lines = [line.strip() for line in str(err).splitlines() if line.strip()] or ["no message"]
    # A line that ends in a colon says nothing without the next.
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    operator = _OPERATOR.search(text)
    if operator is not None:
        return f"ONNX has no operator for {operator[1]} ({type(err).__name__})"
    where = _line_in_text(str(err)) or _line_in_trace(err) or _line_in_trace(first)
    return f"{type(err).__name__}: {text.rstrip('.')}{f'. It happened in {where}' if where else ''}"


def _line_in_text(text: str) -> str | None:
    """Return the line of the model's code that torch quotes in its message."""
    for match in _QUOTED.finditer(text):
        if not match[1].startswith(_TORCH):
            return f"{Path(match[1]).name}, line {match[2]}: {match[3].strip()}"
    return None


def _line_in_trace(err: BaseException) -> str | None:
    """Return the innermost line that is neither torch's nor this package's."""
    own = str(Path(__file__).parent)
    for frame in reversed(traceback.extract_tb(err.__traceback__)):
        if not frame.filename.startswith((_TORCH, own, "<")):
            return f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line}"
    return None
